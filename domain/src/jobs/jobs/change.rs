use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamspace_common::JobId;
use streamspace_queue::{
    Attempt, Done, Failure, Job, Progress, Tx,
    control::{self, Step},
    hours,
    inspect::Filter,
};

use crate::{
    identity::{Permission, Require},
    jobs::{guards, scope},
};

/// Cancels or retries the jobs that a filter matches, step by step: as far as whoever asked for it
/// may see, and no faster than workers can take in what it queues.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    pub change: control::Change,
    #[serde(default)]
    pub filter: Filter,
    /// Where to begin: what is newer has been dealt with.
    #[serde(default)]
    pub after: Option<JobId>,
    /// So many were changed before.
    #[serde(default)]
    pub changed: u64,
}

/// At most 500 jobs in this time.
const PACE: Duration = Duration::from_millis(250);

impl Job for Change {
    const KIND: &'static str = "jobs.change";
    const QUEUE: &'static str = "maintenance";
    const TIMEOUT: Duration = hours(2);
    const FOR_A_PERSON: bool = true;
    const SCHEDULABLE: Option<fn() -> Value> = Some(schema);
    type Ctx = ();

    async fn run(self, (): &(), attempt: &Attempt) -> Result<Done, Failure> {
        attempt.actor().require(Permission::JobsManage)?;
        let reach = scope(attempt.actor());
        let mut changed = self.changed;
        // As they are now, not as they were when the others were changed.
        let filter = Filter { without_kinds: guards::left_alone(attempt.actor()), ..self.filter };
        let Some(filter) = self.change.narrow(&filter) else {
            return Ok(Done::with(json!({ "changed": changed })));
        };
        let mut after = self.after;
        loop {
            let name = after.map_or_else(|| "start".to_owned(), |after| after.to_string());
            let step: Step = attempt
                .step(&name, async |tx: &mut Tx| {
                    control::change_some(tx, reach, self.change, &filter, after, Some(attempt.id())).await
                })
                .await?;
            changed += step.changed;
            let Some(next) = step.next else {
                return Ok(Done::with(json!({ "changed": changed })));
            };
            after = Some(next);
            attempt.progress(Progress {
                current: Some(changed),
                unit: Some("jobs".into()),
                ..Progress::default()
            });
            tokio::select! {
                () = tokio::time::sleep(PACE) => {}
                () = attempt.cancel.cancelled() => return Err(Failure::Cancelled),
            }
        }
    }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["change"],
        "additionalProperties": false,
        "properties": {
            "change": { "enum": ["cancel", "retry"] },
            "filter": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "states": { "type": "array", "items": { "type": "string" } },
                    "kind": { "type": "string" },
                    "queue": { "type": "string" },
                    "parent": { "type": "string", "format": "uuid" },
                    "schedule": { "type": "string", "format": "uuid" },
                    "user": { "type": "string", "format": "uuid" },
                    "createdFrom": { "type": "string", "format": "date-time" },
                    "createdBefore": { "type": "string", "format": "date-time" },
                },
            },
        },
    })
}
