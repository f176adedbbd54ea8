"""Adds populations: children that are trained together."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("children", sa.Column("population", sa.Integer(), nullable=True))
    op.add_column("children", sa.Column("alone", sa.Boolean(), nullable=False, server_default=sa.false()))
