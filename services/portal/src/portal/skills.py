"""Skills as people write them (`cuisine, réparation de vélo`) and as the services keep them."""

import re

from portal.people import folded

SKILL = re.compile(r"[a-z][a-z0-9-]{1,39}")


def as_skills(text: str) -> list[str] | None:
    """Slugs in the order in which they were written, each once; None when one cannot be a slug."""
    words = [re.sub(r"[^a-z0-9]+", "-", folded(part)).strip("-") for part in text.split(",")]
    skills = list(dict.fromkeys(word for word in words if word))
    return skills if all(SKILL.fullmatch(skill) for skill in skills) else None


def skill_words(skill: str) -> str:
    """`reparation-de-velo` → `reparation de velo`."""
    return skill.replace("-", " ")
