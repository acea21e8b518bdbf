-- The role that gateways run with: it reads and writes rows, and changes no table. Run this as the
-- owner of the schema, in FastChat's database, after the first `fastchat-gateway migrate`; running it
-- again does no harm. Then: ALTER ROLE fastchat_gateway PASSWORD '...';

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'fastchat_gateway') THEN
        CREATE ROLE fastchat_gateway LOGIN;
    END IF;
END
$$;

-- Before Postgres 15 everybody may create tables in public.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO fastchat_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO fastchat_gateway;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO fastchat_gateway;

-- What must not change but by an operator or a migration.
REVOKE INSERT, UPDATE, DELETE ON _sqlx_migrations, settings, restorations FROM fastchat_gateway;
REVOKE UPDATE ON log, audit FROM fastchat_gateway;

-- Tables of later migrations, if the same role makes them.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO fastchat_gateway;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO fastchat_gateway;
