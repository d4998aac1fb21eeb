"""The store of many machines: PostgreSQL, over psycopg 3 (the extra [postgres])."""
