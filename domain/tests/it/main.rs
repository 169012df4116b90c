//! Operations and job bodies on a real database.

mod audit;
mod bed;
mod jobs;
