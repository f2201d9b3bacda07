"""Background sending: the request is answered as soon as the message is safe in the outbox.

No BackgroundTasks: what they hold dies with the process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from paceline import Outbox, PacelineError
from paceline.errors import (
    Draining,
    DuplicateConflict,
    InvalidMessage,
    MessageTooLarge,
    OutboxFull,
    RedisUnavailable,
    UnknownDestination,
    UnknownMessage,
)

logger = logging.getLogger("orders")

DESTINATION = "partner"
RETRY_AFTER_S = 5

#: The caller's mistakes, told in the error's own words. A kind stands before its base.
REFUSED: dict[type[PacelineError], int] = {
    MessageTooLarge: 413,
    InvalidMessage: 422,
    DuplicateConflict: 409,
    UnknownMessage: 404,
}
#: Nobody's mistake, or the operator's. The words are for the log: they name hosts and limits.
LATER = (OutboxFull, Draining, RedisUnavailable, UnknownDestination)


class Order(BaseModel):
    customer: str
    item: str


class Accepted(BaseModel):
    id: str
    already: bool


class State(BaseModel):
    """``state`` as docs/states.md has them; ``final``: nothing comes after."""

    id: str
    state: str
    final: bool
    provider_id: str | None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One Outbox for the process: it is thread-safe, and connects at first use, so that the app
    starts without Redis too."""
    url = os.environ.get("PACELINE_REDIS_URL", "redis://127.0.0.1:6379/0")
    with Outbox.from_url(url, timeout_s=2.0) as outbox:
        app.state.outbox = outbox
        yield


def the_outbox(request: Request) -> Outbox:
    outbox: Outbox = request.app.state.outbox
    return outbox


TheOutbox = Annotated[Outbox, Depends(the_outbox)]
app = FastAPI(title="Orders", lifespan=lifespan)


# Plain `def`, so FastAPI calls these in its thread pool. A call takes a millisecond, but seconds
# where Redis is away, and in an `async def` every other request would wait for it too.
@app.post("/orders", status_code=202)
def place(order: Order, outbox: TheOutbox, idempotency_key: Annotated[str, Header()]) -> Accepted:
    """The key is the message's id: who got no answer asks again with it, and one is sent."""
    payload: dict[str, Any] = {"to": order.customer, "text": f"Your order: {order.item}"}
    receipt = outbox.send(DESTINATION, payload, id=idempotency_key)
    return Accepted(id=receipt.id, already=receipt.status == "already")


@app.get("/orders/{message_id}")
def show(message_id: str, outbox: TheOutbox) -> State:
    status = outbox.status(DESTINATION, message_id)
    return State(
        id=status.id,
        state=status.state,
        final=status.final,
        provider_id=status.provider_id,
    )


@app.exception_handler(PacelineError)
async def refuse(_: Request, error: PacelineError) -> JSONResponse:
    """4xx with the error's words where the caller can mend it; 503 where waiting does."""
    if isinstance(error, LATER):
        logger.warning("not taken: %s", error)
        after_s = error.retry_after_s if isinstance(error, OutboxFull) else RETRY_AFTER_S
        return JSONResponse(
            {"detail": "not now; try again with the same Idempotency-Key"},
            503,
            {"Retry-After": str(after_s)},
        )
    for kind, status in REFUSED.items():
        if isinstance(error, kind):
            return JSONResponse({"detail": str(error)}, status)
    raise error
