create table if not exists orders (
    order_id text primary key,
    item text not null,
    amount numeric not null,
    reservation text not null,
    recorded_at timestamptz not null default now()
);
