"""Pages of lists, by keyset: each says where the next begins."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel

Item = TypeVar("Item")
Row = TypeVar("Row")


class Page(BaseModel, Generic[Item]):
    """`next` is the cursor of the page that follows, null on the last."""

    items: list[Item]
    next: str | None

    @classmethod
    def of(
        cls,
        found: Sequence[Row],
        limit: int,
        view: Callable[[Row], Item],
        key: Callable[[Row], object],
        **more: Any,
    ) -> Self:
        """The first `limit` of the `limit + 1` rows asked for: the last only says "more".

        `key` makes the cursor of a row; `more` are the other fields of a page.
        """
        shown = found[:limit]
        return cls(
            items=[view(row) for row in shown],
            next=str(key(shown[-1])) if len(found) > limit else None,
            **more,
        )
