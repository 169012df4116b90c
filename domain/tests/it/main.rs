//! Operations and job bodies on a real database.

mod bed;
mod jobs;
