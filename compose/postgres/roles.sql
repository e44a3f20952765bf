-- Run once by the image, when it has made the data: the roles of docs/deploy.md, with those that migrate and workers log in as.
\getenv owner_password POSTGRES_OWNER_PASSWORD
\getenv worker_password POSTGRES_WORKER_PASSWORD

create role holdfast_worker nologin;
create role holdfast_observer nologin;
create role holdfast_retention nologin;

create role holdfast_owner login password :'owner_password';
grant create on database holdfast to holdfast_owner;

-- A worker makes the tables of the app's record activities, in this schema, and those of projections, in schemas of their own.
create role worker login password :'worker_password' in role holdfast_worker;
create schema authorization worker;
grant create on database holdfast to worker;
