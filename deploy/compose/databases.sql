-- Run once by the postgres image when its volume is new: one role and one database per service, and
-- no way from one to another. The passwords come from the container's environment.

\getenv identity_password IDENTITY_DATABASE_PASSWORD
CREATE ROLE identity LOGIN PASSWORD :'identity_password';
CREATE DATABASE identity OWNER identity;
REVOKE ALL ON DATABASE identity FROM PUBLIC;

\getenv timebank_password TIMEBANK_DATABASE_PASSWORD
CREATE ROLE timebank LOGIN PASSWORD :'timebank_password';
CREATE DATABASE timebank OWNER timebank;
REVOKE ALL ON DATABASE timebank FROM PUBLIC;

\getenv access_password ACCESS_DATABASE_PASSWORD
CREATE ROLE access LOGIN PASSWORD :'access_password';
CREATE DATABASE access OWNER access;
REVOKE ALL ON DATABASE access FROM PUBLIC;

\getenv places_password PLACES_DATABASE_PASSWORD
CREATE ROLE places LOGIN PASSWORD :'places_password';
CREATE DATABASE places OWNER places;
REVOKE ALL ON DATABASE places FROM PUBLIC;

-- The time bank works as this role, which may add to the ledger and change nothing of it.
CREATE ROLE timebank_app NOLOGIN;
GRANT timebank_app TO timebank;
