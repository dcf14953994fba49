"""Each router's parameters and models are analysed once per run, not once per app.

FastAPI does it at the first request to an app: a tenth of a second for the time bank's, and nearly
every test has an app of its own. The outcome depends on the router and on what it is included with.
"""

from dataclasses import replace
from typing import Any

import pytest
from fastapi.routing import _IncludedRouter


def without_its_app(included: _IncludedRouter) -> Any:
    """What a router is included with. The app itself matters to `dependency_overrides` alone,
    which no test uses."""
    return replace(included.include_context, dependency_overrides_provider=None)


def analyse_routes_once(patch: pytest.MonkeyPatch) -> None:
    analyse = _IncludedRouter.effective_candidates

    def effective_candidates(self: _IncludedRouter) -> Any:
        if self._effective_candidates_version is None:
            context = without_its_app(self)
            # On the router, so that it goes when a router goes that a single app has.
            before = vars(self.original_router).setdefault("analysed", [])
            first = next((each for same, each in before if same == context), None)
            if first is None:
                before.append((context, self))
            else:
                self._effective_candidates = analyse(first)
                self._effective_candidates_version = first._effective_candidates_version
        return analyse(self)

    patch.setattr(_IncludedRouter, "effective_candidates", effective_candidates)
