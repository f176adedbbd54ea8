"""Alembic's entry: runs the migrations on the connection that `db.migrate` hands in, inside its transaction."""

from alembic import context

from automl.db.schema import Row

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Row.metadata, transactional_ddl=False)
context.run_migrations()
