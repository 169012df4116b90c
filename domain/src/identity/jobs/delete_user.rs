use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamspace_common::UserId;
use streamspace_queue::{Attempt, Done, Failure, Job, Tx, Unique, minutes};

use crate::{
    api_keys,
    identity::{Estate, removal},
    jobs::schedules,
    teams,
};

/// Deletes somebody who was disabled for it, once what they own belongs to somebody else or is gone.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteUser {
    pub user: UserId,
    pub estate: Estate,
}

impl DeleteUser {
    /// Of a job as it is stored.
    pub(in crate::identity) fn user_of(args: &Value) -> Option<UserId> {
        Self::deserialize(args).ok().map(|job| job.user)
    }

    /// The same.
    pub(in crate::identity) fn estate_of(args: &Value) -> Option<Estate> {
        Self::deserialize(args).ok().map(|job| job.estate)
    }
}

impl Job for DeleteUser {
    const KIND: &'static str = "identity.delete_user";
    const QUEUE: &'static str = "maintenance";
    const TIMEOUT: Duration = minutes(10);
    // Whoever asked for it had the right then; of those who delete themselves it would be gone by now.
    const FOR_A_PERSON: bool = false;
    type Ctx = ();

    fn unique(&self) -> Option<Unique> {
        Some(Unique::until_finished(self.user.to_string()))
    }

    async fn run(self, (): &(), attempt: &Attempt) -> Result<Done, Failure> {
        let job = attempt.id();
        attempt
            .commit(async |tx: &mut Tx| {
                let Some(role) = removal::leaving(tx, job, self.user).await? else {
                    return Ok::<_, Failure>(Value::Null); // it was taken back, or is done
                };
                let heir = removal::heir(tx, self.estate).await?;
                let keys = api_keys::delete_of(tx, self.user).await?;
                let schedules = schedules::leave(tx, (self.user, role), heir).await?;
                let teams = teams::leave(tx, self.user, heir.map(|(heir, _)| heir)).await?;
                let left = json!({
                    "apiKeys": keys,
                    "schedules": schedules,
                    "memberships": teams.memberships,
                    "teamsHandedOver": teams.handed_over,
                    "teamsDeleted": teams.deleted,
                });
                removal::erase(tx, self.user, left.clone()).await?;
                Ok(left)
            })
            .await
    }
}
