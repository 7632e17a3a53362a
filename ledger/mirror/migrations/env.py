"""Alembic's way in: migrations run on the connection that `mirror.store` hands over, in its transaction."""

from alembic import context

from ledger.mirror.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
