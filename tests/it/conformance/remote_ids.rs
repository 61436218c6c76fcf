//! A service's id may change once, when an order becomes a service; whoever followed it late must still find the service.

use provisor_providers::contract::{Outcome, State};

use super::bench::{Candidate, Operation, reference, service_of};

pub(super) async fn every_id_that_was_handed_out_leads_to_the_service(candidate: Candidate) {
    let bench = candidate.bench().await;
    let create = bench.intend(Operation::Create, None).await;
    let ordered = service_of(bench.run(&create).await.unwrap());
    let (at_first, from_then_on) = bench.subject.remote_ids();
    assert!(ordered.remote_id.starts_with(at_first), "{}", ordered.remote_id);
    let service = bench.settled(ordered.clone()).await;
    assert!(service.remote_id.starts_with(from_then_on), "{}", service.remote_id);
    for known in [&ordered, &service] {
        let found = bench.status(&reference(known)).await.unwrap();
        assert_eq!((&found.remote_id, found.state), (&service.remote_id, State::Active), "{}", known.remote_id);
    }
    // A change by the first id changes the service and tells its newest id.
    let suspend = bench.intend(Operation::Suspend, Some(&ordered)).await;
    let Outcome::Done(suspended) = bench.run(&suspend).await.unwrap() else { panic!("suspending takes no time here") };
    assert_eq!((&suspended.remote_id, suspended.state), (&service.remote_id, State::Suspended));
    assert_eq!(bench.bought(), 1);
}
