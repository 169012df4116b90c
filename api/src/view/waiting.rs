use serde::Serialize;
use streamspace_queue::inspect;
use utoipa::ToSchema;
use uuid::Uuid;

use super::span;

/// Why a job has not started.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Waiting {
    /// What stands in its way; empty when it is only not its turn yet.
    pub reasons: Vec<Reason>,
    /// Its place in its tenant's lane, 1 being next; exact to 1,000, then `1000+`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "3")]
    pub position: Option<String>,
    /// How many tenants take turns in its queue, this one included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lanes: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// `tenant_suspended`, `queue_paused`, `concurrency_key`, `rate_limit`, `max_running`, `run_at`, `event`,
    /// `no_worker` or `unknown_kind`.
    #[schema(example = "concurrency_key")]
    pub reason: &'static str,
    /// The same in words.
    pub detail: String,
    /// The jobs that hold the key, as far as the caller may see them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<Uuid>,
}

impl From<inspect::Waiting> for Waiting {
    fn from(waiting: inspect::Waiting) -> Self {
        Self {
            reasons: waiting.reasons.into_iter().map(Reason::from).collect(),
            lanes: waiting.position.map(|position| position.lanes),
            position: waiting.position.map(|position| {
                let more = if position.or_more { "+" } else { "" };
                format!("{}{more}", position.place)
            }),
        }
    }
}

impl From<inspect::Reason> for Reason {
    fn from(reason: inspect::Reason) -> Self {
        use inspect::Reason as Why;
        let whose = |everyone: bool| if everyone { "" } else { " for this tenant" };
        let (reason, detail, held_by) = match reason {
            Why::TenantSuspended => ("tenant_suspended", "its tenant is suspended".to_owned(), vec![]),
            Why::QueuePaused { everyone } => {
                ("queue_paused", format!("its queue is paused{}", whose(everyone)), vec![])
            }
            Why::ConcurrencyKey { key, held_by } => {
                let jobs: Vec<_> = held_by.iter().map(|id| id.0).collect();
                let named = match jobs.first() {
                    Some(first) => format!(", one of them by job {first}"),
                    None => String::new(),
                };
                ("concurrency_key", format!("all slots of its key {key} are taken{named}"), jobs)
            }
            Why::RateLimit { count, period_ms, everyone } => {
                let period = span(std::time::Duration::from_millis(period_ms.unsigned_abs()));
                let detail = format!("its queue starts {count} jobs in {period}{}", whose(everyone));
                ("rate_limit", detail, vec![])
            }
            Why::MaxRunning { limit, everyone } => {
                ("max_running", format!("its queue runs {limit} jobs at a time{}", whose(everyone)), vec![])
            }
            Why::RunAt { at } => ("run_at", format!("it is not due before {at}"), vec![]),
            Why::Event { key, until } => {
                ("event", format!("it waits for the event {key}, until {until} at the latest"), vec![])
            }
            Why::NoWorker => ("no_worker", "no worker takes jobs from its queue now".to_owned(), vec![]),
            Why::UnknownKind => {
                ("unknown_kind", "the workers of its queue do not know its kind yet".to_owned(), vec![])
            }
        };
        Self { reason, detail, held_by }
    }
}
