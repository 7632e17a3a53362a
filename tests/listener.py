"""A reader of the journal for tests, and the events it should end with."""

from dataclasses import dataclass, field

from sqlalchemy import Engine, select

from ledger.mirror import journal, schema
from ledger.mirror.journal import BEGINNING, Offset
from ledger.mirror.packing import unpack

Place = tuple[int, str, int]


@dataclass
class Listener:
    """Keeps what it was told, and lets go of what was taken back."""

    final: bool = False
    limit: int = 7
    offset: Offset = BEGINNING
    has: list[Place] = field(default_factory=list)
    retractions: int = 0

    def listen(self, mirror: Engine) -> None:
        while True:
            with mirror.connect() as connection:
                found = journal.read(connection, self.offset, self.limit, final=self.final)
            assert len(found.events) <= self.limit
            for told in found.events:
                place = (told.row["block_number"], told.row["block_hash"], told.row["log_index"])
                if told.retracted:
                    assert self.has.pop() == place, "what was told last is taken back first"
                    self.retractions += 1
                else:
                    self.has.append(place)
            self.offset = Offset.parse(str(found.reached))  # as it travels
            if not found.more:
                return


def places(mirror: Engine, until: int | None = None) -> list[Place]:
    """Every event the mirror has, in the order of the chain."""
    with mirror.connect() as connection:
        rows = connection.execute(select(schema.blocks).order_by(schema.blocks.c.number)).mappings().all()
    rows = [row for row in rows if until is None or row["number"] <= until]
    return [(row["number"], row["hash"], log.log_index) for row in rows for log in unpack(row["logs"])]
