"""PostgreSQL: Better Auth's tables found, asked, and found again when they change."""
