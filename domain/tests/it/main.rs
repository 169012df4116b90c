//! Operations and job bodies on a real database.

mod audit;
mod bed;
mod jobs;
mod people;
mod tenants;
mod walls;
