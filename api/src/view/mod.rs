//! What answers look like: one type per thing, in the words of the API.

mod api_key;
mod audit;
mod identity_provider;
mod job;
mod queue;
mod schedule;
mod setting;
mod sign_in;
mod stats;
mod team;
mod tenant;
mod user;
mod waiting;
mod worker;

pub use api_key::{ApiKey, KeyCall, KeyDay, KeyOwner, Role};
pub use audit::AuditRecord;
pub use identity_provider::{GroupMapping, IdentityProvider, IdentityProviderSettings};
pub use job::{Batch, CreatedBy, Job, JobError, JobState, Progress};
pub use queue::Queue;
pub use schedule::{CatchUp, Fire, FireOutcome, Overlap, Schedule};
pub use setting::Setting;
pub use sign_in::SignIn;
pub use stats::Stats;
pub(crate) use streamspace_common::span::{parse as parse_span, show as span};
pub use team::{Team, TeamMember, TeamRole, TeamRoleInfo, TeamRolePermissions};
pub use tenant::{Tenant, Tier};
pub use user::User;
pub use waiting::{Reason, Waiting};
pub use worker::Worker;
