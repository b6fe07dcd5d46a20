"""How far the read models are."""

from typing import Literal

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from smartgrid_http.answers import Answer, answer
from smartgrid_http.describe import describe
from smartgrid_http.problems import Problem, unavailable
from smartgrid_http.services import Services, present
from smartgrid_projections.ports import Unavailable
from smartgrid_projections.queries.standing import Progress, progress_of_all


class Projections(Struct, frozen=True, kw_only=True):
    """Projections, ordered by name."""

    status: Literal["success"] = "success"
    data: list[Progress]


@get("/api/v1/admin/projections", opt=describe("All projections", answers={200: Projections}))
async def list_projections(services: NamedDependency[Services]) -> Answer:
    """Answer position, head and lag of every projection."""
    return _answered(await _progress(services))


@get("/api/v1/admin/projections/{name:str}", opt=describe("One projection", answers={200: Projections}))
async def get_projection(name: FromPath[str], services: NamedDependency[Services]) -> Answer:
    """Answer position, head and lag of one projection."""
    return await projection_answer(services, name)


async def projection_answer(services: Services, name: str) -> Answer:
    """
    Answer projection *name*.

    Raises:
        Problem: 404: there is none of that name.
    """
    found = [one for one in await _progress(services) if one.name == name]
    if not found:
        raise Problem(404, "not_found", "There is no such projection")
    return _answered(found)


async def _progress(services: Services) -> list[Progress]:
    try:
        return await progress_of_all(present(services.standings), present(services.store), services.clock.now())
    except Unavailable as error:
        raise unavailable("store_unavailable", "The database cannot be reached; try again") from error


def _answered(data: list[Progress]) -> Answer:
    included: dict[str, int] = {}
    for one in data:
        for log, position in one.position.items():
            included[log] = min(position, included.get(log, position))
    return answer(Projections(data=data), position=",".join(f"{log}@{included[log]}" for log in sorted(included)))


handlers = [list_projections, get_projection]
