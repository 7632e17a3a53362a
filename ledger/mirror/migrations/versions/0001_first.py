"""The first tables.

As long as there is no release, they are those of `mirror.schema`; from then on this file is written out and stays.
"""

from alembic import op

from ledger.mirror.schema import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    metadata.create_all(op.get_bind())


def downgrade() -> None:
    metadata.drop_all(op.get_bind())
