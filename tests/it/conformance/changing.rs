//! Changes: each is made once, however often it is asked for.

use provisor_providers::contract::{Effect, Outcome, ProblemKind, Retry, Service, State};
use provisor_tests::faults::{Answer, Fault};

use super::bench::{Bench, Candidate, Operation, reference, service_of};
use super::subjects::PASSWORD;

/// The server commits, the answer never comes.
const LOST: Fault = Fault { reaches: true, answer: Answer::Cut };

pub(super) async fn an_order_becomes_an_active_service(candidate: Candidate) {
    let bench = candidate.bench().await;
    let service = bench.service().await;
    assert_eq!(service.state, State::Active);
    assert_eq!((bench.bought(), bench.charges()), (1, 1));
}

pub(super) async fn one_key_makes_one_service(candidate: Candidate) {
    let bench = candidate.bench().await;
    let create = bench.intend(Operation::Create, None).await;
    let first = service_of(bench.run(&create).await.unwrap());
    let first = bench.settled(first).await;
    let again = service_of(bench.run(&create.again()).await.unwrap());
    let again = bench.settled(again).await;
    assert_eq!((&again.remote_id, again.state), (&first.remote_id, State::Active));
    assert_eq!((bench.bought(), bench.charges()), (1, 1));
    // Another intention is another service.
    bench.service().await;
    assert_eq!((bench.bought(), bench.charges()), (2, 2));
}

/// Longer than a call's own tries: the host, or a panel, calls once more.
pub(super) async fn an_order_whose_answer_was_lost_is_found_again(candidate: Candidate) {
    let bench = candidate.bench().await;
    let mut create = bench.intend(Operation::Create, None).await;
    create.call.deadline_ms = 1_000;
    bench.upstream.inject(bench.subject.change(Operation::Create), LOST, usize::MAX);
    let lost = bench.run(&create).await;
    bench.upstream.heal();
    assert_eq!((bench.bought(), bench.charges()), (1, 1), "the order was executed");
    if let Err(lost) = lost {
        assert_eq!((lost.kind, lost.effect), (ProblemKind::Unreachable, Effect::Unknown), "{}", lost.message);
    }
    let mut again = create.again();
    again.call.deadline_ms = 20_000;
    let service = bench.settled(service_of(bench.run(&again).await.unwrap())).await;
    assert_eq!(service.state, State::Active);
    assert_eq!((bench.bought(), bench.charges()), (1, 1));
}

pub(super) async fn an_order_without_credit_is_made_once_the_credit_is_there(candidate: Candidate) {
    let bench = candidate.bench_with("0.50").await;
    let create = bench.intend(Operation::Create, None).await;
    let refused = bench.run(&create).await.unwrap_err();
    let expected = (ProblemKind::PaymentRequired, bench.subject.unpaid(), Retry::AfterFix);
    assert_eq!((refused.kind, refused.effect, refused.retry), expected, "{}", refused.message);
    assert_eq!(refused.remote_id.is_some(), refused.effect == Effect::Partial, "what was left behind has an id");
    assert_eq!(bench.charges(), 0);
    bench.credit("100.00").await;
    let made = service_of(bench.run(&create.again()).await.unwrap());
    let service = bench.settled(made).await;
    assert_eq!(service.state, State::Active);
    assert_eq!((bench.bought(), bench.charges()), (1, 1));
    if let Some(waiting) = refused.remote_id {
        let followed = bench.status(&reference(&Service { remote_id: waiting, ..service.clone() })).await.unwrap();
        assert_eq!(followed.remote_id, service.remote_id, "the order that waited is the one that was paid");
    }
}

pub(super) async fn suspending_twice_and_taking_it_back_twice_is_a_success(candidate: Candidate) {
    let bench = candidate.bench().await;
    let service = bench.service().await;
    for (operation, state) in [(Operation::Suspend, State::Suspended), (Operation::Unsuspend, State::Active)] {
        let first = bench.intend(operation, Some(&service)).await;
        let fresh = bench.intend(operation, Some(&service)).await;
        for intent in [first.clone(), first.again(), fresh] {
            assert_eq!(done(&bench, bench.run(&intent).await.unwrap()).await, state, "{operation:?}");
            assert_eq!(bench.status(&reference(&service)).await.unwrap().state, state, "{operation:?}");
        }
    }
    assert_eq!((bench.bought(), bench.charges()), (1, 1));
}

pub(super) async fn terminating_twice_is_a_success(candidate: Candidate) {
    let bench = candidate.bench().await;
    let service = bench.service().await;
    let terminate = bench.intend(Operation::Terminate, Some(&service)).await;
    let mut intents = vec![terminate.clone(), terminate.again()];
    if bench.subject.remembers_the_ended() {
        intents.push(bench.intend(Operation::Terminate, Some(&service)).await);
    }
    for intent in intents {
        assert_eq!(done(&bench, bench.run(&intent).await.unwrap()).await, State::Terminated);
        assert_eq!(bench.bought(), 0);
    }
    let state = bench.status(&reference(&service)).await.unwrap().state;
    assert!(matches!(state, State::Terminated | State::Missing), "{state:?}");
    // Ended and ordered again: a new one.
    bench.service().await;
    assert_eq!((bench.bought(), bench.charges()), (1, 2));
}

pub(super) async fn a_due_date_is_paid_once_and_the_next_one_again(candidate: Candidate) {
    let bench = candidate.bench().await;
    if !bench.offers(Operation::Renew) {
        return;
    }
    let service = bench.service().await;
    let renew = bench.intend(Operation::Renew, Some(&service)).await;
    for intent in [renew.clone(), renew.clone().again(), renew.again()] {
        assert_eq!(done(&bench, bench.run(&intent).await.unwrap()).await, State::Active);
        assert_eq!(bench.charges(), 2, "the order and one renewal");
    }
    let renewed = bench.status(&reference(&service)).await.unwrap();
    if service.due_at.is_some() {
        assert!(renewed.due_at > service.due_at, "{:?} after {:?}", renewed.due_at, service.due_at);
        // A provider that shows due dates needs no key to know what was paid.
        let other_key = bench.intend(Operation::Renew, Some(&service)).await;
        done(&bench, bench.run(&other_key).await.unwrap()).await;
        assert_eq!(bench.charges(), 2);
    }
    let next = bench.intend(Operation::Renew, Some(&renewed)).await;
    done(&bench, bench.run(&next).await.unwrap()).await;
    assert_eq!(bench.charges(), 3);
}

pub(super) async fn a_package_is_changed_and_paid_once(candidate: Candidate) {
    let bench = candidate.bench().await;
    if !bench.offers(Operation::ChangePackage) {
        return;
    }
    let service = bench.service().await;
    let change = bench.intend(Operation::ChangePackage, Some(&service)).await;
    let fresh = bench.intend(Operation::ChangePackage, Some(&service)).await;
    for intent in [change.clone(), change.again(), fresh] {
        let changed = service_of(bench.run(&intent).await.unwrap());
        assert_eq!(changed.plan.as_deref(), Some(bench.subject.other_plan()));
        assert_eq!((bench.bought(), bench.charges()), (1, 2));
    }
}

pub(super) async fn a_password_is_set(candidate: Candidate) {
    let bench = candidate.bench().await;
    if !bench.offers(Operation::ResetPassword) {
        return;
    }
    let service = bench.service().await;
    let before = bench.everything();
    let reset = bench.intend(Operation::ResetPassword, Some(&service)).await;
    for intent in [reset.clone(), reset.again()] {
        done(&bench, bench.run(&intent).await.unwrap()).await;
        assert_ne!(bench.everything(), before);
    }
    if bench.capability("credentials").is_some() {
        let login = bench.client.credentials(&bench.world, &bench.at, reference(&service)).await.ok().unwrap();
        assert!(login.password.as_deref() == Some(PASSWORD), "the password is another one");
    }
    assert_eq!((bench.bought(), bench.charges()), (1, 1));
}

/// The state a change ended in, however long it took.
async fn done(bench: &Bench, outcome: Outcome) -> State {
    match outcome {
        Outcome::Done(service) => service.state,
        Outcome::Pending(service) => bench.settled(service).await.state,
    }
}
