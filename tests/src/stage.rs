//! Where scripts are played: the kinds, and the table of their effects.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use streamspace_queue::batch::{Batch, ItemAttempt, ItemDone};
use streamspace_queue::{Attempt, Backoff, Done, Failure, Job, Progress, Slot, Unique};

use crate::script::{Move, Script};

/// Every run and every effect is a row, with the time of the database.
pub const EFFECTS: &str = "
    create table effects (
        seq     bigserial primary key,
        job_id  uuid not null,
        name    text not null,
        attempt integer not null,
        pid     integer not null,
        at      timestamptz not null default clock_timestamp()
    );
    create index effects_by_job on effects (job_id);
    create index effects_by_name on effects (name, at);";

/// What the bodies need: connections of their own, so that they neither take the engine's nor stand
/// behind a pooler that a test puts in front of it.
#[derive(Debug, Clone)]
pub struct Stage {
    pub pool: PgPool,
}

/// A kind that plays its script, with a policy of its own.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $kind:literal { $($policy:tt)* })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Script);

        impl Job for $name {
            const KIND: &'static str = $kind;
            const QUEUE: &'static str = "lab";
            const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), cap: Duration::from_millis(400) };
            $($policy)*
            type Ctx = Stage;

            fn slots(&self) -> Vec<Slot> {
                self.0.slot.iter().map(|(key, limit)| Slot::per_tenant(key, *limit)).collect()
            }

            fn unique(&self) -> Option<Unique> {
                self.0.unique.as_ref().map(Unique::until_finished)
            }

            async fn run(self, stage: &Stage, attempt: &Attempt) -> Result<Done, Failure> {
                stage.play(self.0, attempt).await
            }
        }
    )+};
}

kinds! {
    /// Patient: what goes wrong is not its policy.
    Play = "lab.play" {
        const TIMEOUT: Duration = Duration::from_secs(120);
        const ATTEMPTS: i32 = 8;
        const SCHEDULABLE: Option<fn() -> serde_json::Value> = Some(|| serde_json::json!({ "type": "object" }));
    }
    /// Impatient: half a second, and another half to stop.
    Brief = "lab.brief" {
        const TIMEOUT: Duration = Duration::from_millis(500);
        const GRACE: Duration = Duration::from_millis(500);
        const ATTEMPTS: i32 = 2;
    }
    /// Known to the new release only.
    Novel = "lab.novel" { const TIMEOUT: Duration = Duration::from_secs(60); }
}

/// Ten thousand items, each of which is a row; the process dies at the items that are named, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Count {
    pub deadly: Vec<u32>,
}

impl Batch for Count {
    const KIND: &'static str = "lab.count";
    const CHUNK_KIND: &'static str = "lab.count_chunk";
    type Item = u32;
    type Ctx = Stage;

    async fn item(&self, stage: &Stage, item: u32, at: &ItemAttempt<'_>) -> Result<ItemDone, Failure> {
        let deadly = format!("dies at {item}");
        if self.deadly.contains(&item) && !stage.has(&deadly).await? {
            stage.note(at.attempt(), &deadly).await?;
            die();
        }
        if item % 1_000 == 999 {
            return Err(Failure::permanent("every thousandth fails"));
        }
        let row = stage.row(at.attempt(), &format!("item {item}"));
        at.commit(async |tx| row.insert(tx.conn().await?).await).await
    }
}

/// The second payload version of a kind: old workers know `lab.evolved`, and read version 1 only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvolvedV1 {}

/// See [`EvolvedV1`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvolvedV2 {
    pub added: Option<String>,
}

macro_rules! evolved {
    ($name:ident, $version:literal, $read:expr) => {
        impl Job for $name {
            const KIND: &'static str = "lab.evolved";
            const QUEUE: &'static str = "lab";
            const VERSION: i16 = $version;
            type Ctx = Stage;

            async fn run(self, stage: &Stage, attempt: &Attempt) -> Result<Done, Failure> {
                let read: fn(Self) -> String = $read;
                stage.note(attempt, &read(self)).await?;
                Ok(Done::nothing())
            }
        }
    };
}

evolved!(EvolvedV1, 1, |_| "read by 1".into());
evolved!(EvolvedV2, 2, |new| format!("read by 2: {:?}", new.added));

impl Stage {
    async fn play(&self, script: Script, attempt: &Attempt) -> Result<Done, Failure> {
        let mut run = 0;
        if script.announced {
            self.note(attempt, "start").await?;
            run = self.runs(attempt).await?;
        }
        for step in script.moves {
            let step = match step {
                Move::Runs(first, step) if run <= first => *step,
                Move::Runs(..) => continue,
                step => step,
            };
            if let Some(done) = self.make(step, attempt).await? {
                return Ok(done);
            }
        }
        Ok(Done::nothing())
    }

    /// `Some`: the script ends here.
    async fn make(&self, step: Move, attempt: &Attempt) -> Result<Option<Done>, Failure> {
        match step {
            Move::Note(name) => self.note(attempt, &name).await?,
            Move::Commit(name) => {
                let row = self.row(attempt, &name);
                return attempt.commit(async |tx| row.insert(tx.conn().await?).await).await.map(Some);
            }
            Move::CommitAndDie(name) => {
                let row = self.row(attempt, &name);
                attempt.commit(async |tx| row.insert(tx.conn().await?).await).await?;
                die();
            }
            Move::Step(name) => {
                let row = self.row(attempt, &name);
                attempt.step(&name, async |tx| row.insert(tx.conn().await?).await).await?;
            }
            Move::Sleep(ms) => {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(ms)) => {}
                    () = attempt.cancel.cancelled() => return Err(Failure::Cancelled),
                }
            }
            Move::Deaf(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Move::Block(ms) => {
                std::thread::sleep(Duration::from_millis(ms));
                self.note_detached(attempt, "unblocked");
            }
            Move::UntilCancelled => {
                attempt.cancel.cancelled().await;
                self.note(attempt, "asked to stop").await?;
                return Err(Failure::Cancelled);
            }
            Move::Panic => panic!("as the script says"),
            Move::Answer(bytes) => return Ok(Some(Done::with("x".repeat(bytes)))),
            Move::Retry => return Err(Failure::retry("once more, as the script says")),
            Move::Fail => return Err(Failure::permanent("for good, as the script says")),
            Move::Snooze(ms) => return Err(Failure::Snooze(Duration::from_millis(ms))),
            Move::Park(event, ms) => return Err(Failure::Park { event, timeout: Duration::from_millis(ms) }),
            Move::Progress(percent) => {
                attempt.progress(Progress { percent: Some(percent.into()), ..Progress::default() });
            }
            Move::Checkpoint(value) => {
                let before = attempt.checkpoint::<i64>();
                self.note(attempt, &format!("checkpoint {before:?}")).await?;
                attempt.set_checkpoint(value).await?;
            }
            Move::Die => die(),
            Move::Runs(..) => unreachable!("unwrapped by who calls"),
        }
        Ok(None)
    }

    async fn note(&self, attempt: &Attempt, name: &str) -> sqlx::Result<()> {
        let row = self.row(attempt, name);
        let mut connection = self.pool.acquire().await?;
        row.insert(&mut connection).await
    }

    /// Of an attempt that may have been abandoned, so that it is dropped at its next await.
    fn note_detached(&self, attempt: &Attempt, name: &str) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let (stage, row) = (self.clone(), self.row(attempt, name));
        tokio::spawn(async move {
            sqlx::query("insert into effects (job_id, name, attempt, pid, at) values ($1, $2, $3, 0, to_timestamp($4))")
                .bind(row.job)
                .bind(row.name)
                .bind(row.attempt)
                .bind(now.as_secs_f64())
                .execute(&stage.pool)
                .await
        });
    }

    fn row(&self, attempt: &Attempt, name: &str) -> Row {
        let noted = std::time::Instant::now();
        Row { job: attempt.id().0, name: name.to_owned(), attempt: attempt.number(), noted }
    }

    async fn has(&self, name: &str) -> sqlx::Result<bool> {
        sqlx::query_scalar("select exists (select from effects where name = $1)")
            .bind(name)
            .fetch_one(&self.pool)
            .await
    }

    async fn runs(&self, attempt: &Attempt) -> sqlx::Result<u64> {
        let runs: i64 =
            sqlx::query_scalar("select count(*) from effects where job_id = $1 and name = 'start'")
                .bind(attempt.id().0)
                .fetch_one(&self.pool)
                .await?;
        Ok(runs.unsigned_abs())
    }
}

struct Row {
    job: uuid::Uuid,
    name: String,
    attempt: i32,
    /// When it happened, which the time that a connection takes is no part of.
    noted: std::time::Instant,
}

impl Row {
    async fn insert(&self, connection: &mut sqlx::PgConnection) -> sqlx::Result<()> {
        sqlx::query(
            "insert into effects (job_id, name, attempt, pid, at)
             values ($1, $2, $3, $4, clock_timestamp() - make_interval(secs => $5))",
        )
        .bind(self.job)
        .bind(&self.name)
        .bind(self.attempt)
        .bind(std::process::id().cast_signed())
        .bind(self.noted.elapsed().as_secs_f64())
        // Unnamed, so that it survives a pooler that changes the session.
        .persistent(false)
        .execute(connection)
        .await?;
        Ok(())
    }
}

fn die() {
    let me = nix::unistd::Pid::this();
    let _ = nix::sys::signal::kill(me, nix::sys::signal::Signal::SIGKILL);
    // The signal is on its way; nothing of this thread may happen after it.
    loop {
        std::thread::park();
    }
}
