//! Follows one job to its end: by server-sent events, and by long polling whenever those break.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    api::{Api, Call, backoff},
    error::Error,
    job_view::Job,
    output::Item,
    sse::Parser,
};

/// How long no answer at all is taken for a server that comes back.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so many streams that brought nothing, something on the way holds them back.
const USELESS_STREAMS: u32 = 3;
/// Progress shows no more often than this while polling.
const POLL: Duration = Duration::from_secs(3);

/// What whoever follows is told.
pub enum News<'a> {
    Job(&'a Item<Job>),
    /// Nobody answers; it is tried again.
    Lost,
}

/// One job that is followed.
pub struct Follow<'a> {
    api: &'a Api,
    id: &'a str,
    last_event_id: Option<String>,
    useless_streams: u32,
    /// When the server last said anything.
    heard: Instant,
}

impl<'a> Follow<'a> {
    pub fn new(api: &'a Api, id: &'a str) -> Self {
        Self { api, id, last_event_id: None, useless_streams: 0, heard: Instant::now() }
    }

    /// Calls `tell` with each state and answers with the last. Errors that pass do not end it.
    pub async fn run(mut self, mut tell: impl FnMut(News<'_>)) -> Result<Item<Job>, Error> {
        let mut failures = 0;
        loop {
            let error = match self.step(&mut tell).await {
                Ok(Some(job)) => return Ok(job),
                Ok(None) => {
                    failures = 0;
                    continue;
                }
                Err(error) => error,
            };
            let pause = error.retry_after().unwrap_or_else(|| backoff(failures + 1));
            if !error.is_transient() || self.heard.elapsed() + pause > PATIENCE {
                return Err(error);
            }
            tell(News::Lost);
            failures += 1;
            tokio::time::sleep(pause).await;
        }
    }

    /// A stream while they are of use, then a poll: it tells whether the server is there, and what
    /// was missed. `None`: the job has not ended.
    async fn step(&mut self, tell: &mut impl FnMut(News<'_>)) -> Result<Option<Item<Job>>, Error> {
        if self.useless_streams < USELESS_STREAMS
            && let Some(job) = self.stream(tell).await?
        {
            return Ok(Some(job));
        }
        let job = self.read(Call::get(["jobs", self.id]).waits(POLL)).await?;
        tell(News::Job(&job));
        Ok(job.view.terminal.then_some(job))
    }

    /// `None`: it broke, or the server closed it.
    async fn stream(&mut self, tell: &mut impl FnMut(News<'_>)) -> Result<Option<Item<Job>>, Error> {
        let call = Call::get(["jobs", self.id, "events"]);
        let mut response = match self.api.stream(&call, self.last_event_id.as_deref()).await {
            Ok(response) => response,
            // Whoever may not see the job is told so; a server without streams is polled.
            Err(error) if is_about_streams(&error) => {
                self.useless_streams += 1;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.useless_streams += 1;
        let mut parser = Parser::default();
        while let Ok(Some(bytes)) = response.chunk().await {
            // Be it only a sign of life.
            (self.useless_streams, self.heard) = (0, Instant::now());
            let Ok(events) = parser.push(&bytes) else { break };
            for event in events {
                let job = match job_of(&event.data) {
                    Some(job) if job.view.terminal || job.view.state == "running" => job,
                    // Events do not tell why a job waits; and what we do not understand makes us look.
                    _ => self.read(Call::get(["jobs", self.id])).await?,
                };
                self.last_event_id = parser.last_id().map(str::to_owned).or(self.last_event_id.take());
                tell(News::Job(&job));
                if job.view.terminal {
                    return Ok(Some(job));
                }
            }
        }
        Ok(None)
    }

    async fn read(&mut self, call: Call) -> Result<Item<Job>, Error> {
        let raw: Box<RawValue> = self.api.send_once(&call).await?;
        self.heard = Instant::now();
        Item::read(raw).map_err(|error| self.api.unreadable(error))
    }
}

fn job_of(data: &str) -> Option<Item<Job>> {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only asks whether the fields are there")]
    struct Whole {
        id: String,
        state: String,
        terminal: bool,
    }
    serde_json::from_str::<Whole>(data).ok()?;
    Item::read(serde_json::from_str(data).ok()?).ok()
}

/// Too many streams of this user are open, or something on the way does not know them.
fn is_about_streams(error: &Error) -> bool {
    error.status().is_some_and(|status| matches!(status.as_u16(), 404..=406 | 429 | 501))
}
