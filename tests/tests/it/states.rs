//! What may follow what.

use anyhow::Result;
use streamspace_queue::State;

use crate::support::*;

#[test]
fn from_a_finished_job_only_an_operators_retry_leads_on() {
    for from in State::ALL {
        let next: Vec<_> = State::ALL.into_iter().filter(|next| from.may_become(*next)).collect();
        match from {
            State::Succeeded => assert!(next.is_empty()),
            State::Failed | State::Cancelled => assert_eq!(next, [State::Queued]),
            _ => {
                assert!(!next.is_empty() && !next.contains(&from), "{from:?} -> {next:?}");
                assert!(next.contains(&State::Cancelled), "{from:?} can be cancelled");
            }
        }
        assert!(from.is_terminal() != (from.is_waiting() || from == State::Running));
    }
}

/// Every move that rows make under a mixed load with crashes and cancels is one that the model knows.
#[tokio::test(flavor = "multi_thread")]
async fn rows_move_only_as_the_model_says() -> Result<()> {
    let lab = Lab::new().await?;
    sqlx::raw_sql(
        "create table moves (was text not null, became text not null, primary key (was, became));
         create function moved() returns trigger language plpgsql as $$ begin
             insert into moves values (old.state::text, new.state::text) on conflict do nothing; return null; end $$;
         create trigger moved after update on jobs for each row when (old.state <> new.state) execute function moved();",
    )
    .execute(&lab.pool)
    .await?;
    let mut jobs = vec![];
    for i in 0..30_u64 {
        let key = format!("key {}", i % 3);
        jobs.push(lab.enqueue(play([Retry.first(), Snooze(50).in_first(2), commit("effect")])).await?);
        jobs.push(lab.enqueue(play([Park("event".into(), 2_000).first(), commit("effect")])).await?);
        jobs.push(lab.enqueue(Play(Script::of([Sleep(20), commit("effect")]).with_slot(&key, 1))).await?);
        jobs.push(lab.enqueue_in(ms(i * 50), play([Sleep(500), commit("effect")])).await?);
        jobs.push(lab.enqueue(play([Fail])).await?);
        jobs.push(lab.enqueue(Brief(Script::of([Sleep(60_000), commit("effect")]))).await?);
    }
    let victim = lab.worker().concurrency(50).start().await;
    let _heir = lab.worker().concurrency(50).start().await;
    lab.sees("effect", 20, SOON).await;
    victim.kill9().await;
    for job in jobs.iter().step_by(7) {
        lab.cancel(*job).await?;
    }
    lab.happened("event").await?;
    lab.settles(LATER).await;
    let moves: Vec<(String, String)> =
        sqlx::query_as("select was, became from moves").fetch_all(&lab.pool).await?;
    let state =
        |name: &str| State::ALL.into_iter().find(|state| state.as_str() == name).expect("a known state");
    for (was, became) in &moves {
        assert!(state(was).may_become(state(became)), "{was} -> {became}");
    }
    assert!(moves.len() >= 9, "the load was mixed: {moves:?}");
    assert_eq!(
        lab.number(
            "select max(n) from (select count(*) n from effects where name = 'effect' group by job_id) t"
        )
        .await,
        1
    );
    Ok(())
}
