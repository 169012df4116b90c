//! Operations and job bodies on a real database.

mod audit;
mod bed;
mod jobs;
mod people;
mod sign_ins;
mod tenants;
mod walls;
