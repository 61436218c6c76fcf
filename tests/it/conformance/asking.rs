//! What is told without a change: capabilities, shapes, and the failures that concern every operation alike.

use std::rc::Rc;

use provisor_providers::contract::{Effect, Problem, ProblemKind, Retry, Service, State};
use provisor_providers::provisioning::Connection;
use tokio::task::JoinSet;

use super::bench::{Bench, Candidate, Operation, reference};

/// Every function of the contract but `describe`; what ends the service comes last.
const OPERATIONS: [&str; 20] = [
    "check",
    "balance",
    "catalog",
    "list-services",
    "status",
    "credentials",
    "sign-on",
    "invoices",
    "invoice-pdf",
    "receive",
    "get-webhook",
    "set-webhook",
    "create",
    "suspend",
    "unsuspend",
    "renew",
    "reset-password",
    "change-package",
    "power",
    "terminate",
];

pub(super) async fn describe_lists_exactly_what_works(candidate: Candidate) {
    let bench = candidate.bench().await;
    let service = bench.service().await;
    let info = bench.client.info();
    assert_eq!(info.id, candidate.provider);
    for capability in &info.capabilities {
        assert!(OPERATIONS.contains(&capability.operation.as_str()), "{}", capability.operation);
    }
    for operation in OPERATIONS {
        let result = ask(&bench, &bench.at, operation, &service).await;
        match (bench.capability(operation), result) {
            (None, Err(problem)) => {
                assert_eq!((problem.kind, problem.effect), (ProblemKind::Unsupported, Effect::None), "{operation}");
            }
            (None, Ok(())) => panic!("{operation} works and is not listed"),
            // What the test can only send unsigned.
            (Some(_), Err(problem)) if operation == "receive" => assert_eq!(problem.kind, ProblemKind::Unauthorized),
            (Some(_), result) => result.unwrap_or_else(|problem| panic!("{operation}: {}", problem.message)),
        }
    }
}

pub(super) async fn an_operation_answers_unsupported_without_the_setting_it_needs(candidate: Candidate) {
    let bench = candidate.bench().await;
    let service = bench.service().await;
    for capability in bench.client.info().capabilities {
        for needed in capability.properties.iter().filter(|property| property.name == "needs-setting") {
            let at = bench.at(|at| at.settings.retain(|setting| setting.name != needed.value));
            let refused = ask(&bench, &at, &capability.operation, &service).await.unwrap_err();
            assert_eq!(refused.kind, ProblemKind::Unsupported, "{} without {}", capability.operation, needed.value);
        }
    }
}

pub(super) async fn the_account_the_credit_and_the_catalogue_have_their_shapes(candidate: Candidate) {
    let bench = candidate.bench().await;
    bench.check().await.unwrap();
    assert_eq!(bench.balance().await.unwrap().minor, 100_000);
    let plans = bench.catalog().await.unwrap();
    let order = bench.subject.order();
    for plan in [order.plan.as_str(), bench.subject.other_plan()] {
        let found = plans.iter().filter(|known| known.id == plan).count();
        assert_eq!(found, 1, "{plan} in the catalogue");
    }
    for plan in &plans {
        assert!(!plan.id.is_empty() && !plan.name.is_empty());
        assert!(plan.prices.iter().all(|price| price.amount.minor >= 0 && !price.term.is_empty()), "{}", plan.id);
    }
    let service = bench.service().await;
    assert_eq!(bench.status(&reference(&service)).await.unwrap().state, State::Active);
    if bench.capability("list-services").is_some() {
        let page = bench.told(bench.client.list_services(&bench.world, &bench.at, None).await).unwrap();
        let ids: Vec<String> = page.services.into_iter().map(|service| service.remote_id).collect();
        assert_eq!((ids, page.next), (vec![service.remote_id], None));
    }
}

pub(super) async fn an_unknown_service_is_missing_and_cannot_be_terminated(candidate: Candidate) {
    let bench = candidate.bench().await;
    assert_eq!(bench.status(&bench.subject.unknown()).await.unwrap().state, State::Missing);
    let terminate = bench.intend(Operation::Terminate, None).await;
    let refused = bench.run(&terminate).await.unwrap_err();
    assert_eq!((refused.kind, refused.effect), (ProblemKind::NotFound, Effect::None), "{}", refused.message);
}

pub(super) async fn a_wrong_secret_is_unauthorized_everywhere(candidate: Candidate) {
    let bench = candidate.bench().await;
    let service = bench.service().await;
    let before = bench.everything();
    // A good one's form: another key of the provider could look like it.
    let at = bench.at(|at| at.secret = at.secret.replace("MARKED", "MARKEDwrong"));
    for operation in online(&bench) {
        let refused = ask(&bench, &at, &operation, &service).await.unwrap_err();
        let expected = (ProblemKind::Unauthorized, Effect::None, Retry::AfterFix);
        assert_eq!((refused.kind, refused.effect, refused.retry), expected, "{operation}: {}", refused.message);
    }
    assert_eq!(bench.everything(), before);
}

pub(super) async fn a_closed_port_is_unreachable_everywhere(candidate: Candidate) {
    let bench = Rc::new(candidate.bench().await);
    let service = bench.service().await;
    bench.upstream.close().await;
    // Each tries for a while.
    let mut asking = JoinSet::new();
    for operation in online(&bench) {
        let (bench, service) = (Rc::clone(&bench), service.clone());
        asking.spawn_local(async move {
            let failed = ask(&bench, &bench.at, &operation, &service).await.unwrap_err();
            let expected = (ProblemKind::Unreachable, Effect::None);
            assert_eq!((failed.kind, failed.effect), expected, "{operation}: {}", failed.message);
            assert!(!matches!(failed.retry, Retry::Never), "{operation}");
        });
    }
    while let Some(ended) = asking.join_next().await {
        ended.unwrap();
    }
}

/// What is listed and asks the network.
fn online(bench: &Bench) -> Vec<String> {
    let listed = bench.client.info().capabilities.into_iter().map(|capability| capability.operation);
    listed.filter(|operation| !bench.subject.offline().contains(&operation.as_str())).collect()
}

/// Calls an operation with good arguments.
async fn ask(bench: &Bench, at: &Connection, operation: &str, service: &Service) -> Result<(), Problem> {
    let (client, world, id) = (bench.client, &bench.world, reference(service));
    match operation {
        "check" => bench.told(client.check(world, at).await).map(drop),
        "balance" => bench.told(client.balance(world, at).await).map(drop),
        "catalog" => bench.told(client.catalog(world, at).await).map(drop),
        "list-services" => bench.told(client.list_services(world, at, None).await).map(drop),
        "status" => bench.told(client.status(world, at, id).await).map(drop),
        "credentials" => hidden(bench, client.credentials(world, at, id).await),
        "sign-on" => hidden(bench, client.sign_on(world, at, id, target(bench)).await),
        "invoices" => bench.told(client.invoices(world, at, None).await).map(drop),
        "invoice-pdf" => bench.told(client.invoice_pdf(world, at, invoice(bench).await).await).map(drop),
        "receive" => bench.told(client.receive(world, at, &[], b"{}")).map(drop),
        "get-webhook" => bench.told(client.get_webhook(world, at).await).map(drop),
        "set-webhook" => hidden(bench, client.set_webhook(world, at, None).await),
        change => {
            let operation = Operation::ALL.into_iter().find(|operation| operation.name() == change).unwrap();
            let mut intent = bench.intend_at(at, operation, Some(service)).await?;
            // Waiting longer would show nothing more.
            intent.call.deadline_ms = 5_000;
            bench.told(bench.perform(at, intent).await).map(drop)
        }
    }
}

/// What is handed out is secret; what a failure says is not.
fn hidden<T>(bench: &Bench, result: Result<T, Problem>) -> Result<(), Problem> {
    bench.told(result.map(drop))
}

fn target(bench: &Bench) -> String {
    let properties = bench.capability("sign-on").map(|capability| capability.properties).unwrap_or_default();
    let target = properties.into_iter().find(|property| property.name == "target");
    target.map(|property| property.value).unwrap_or_default()
}

/// An invoice that there is; where there are none, any.
async fn invoice(bench: &Bench) -> String {
    let page = bench.client.invoices(&bench.world, &bench.at, None).await;
    page.ok().and_then(|page| page.invoices.into_iter().next()).map_or_else(|| "1".to_owned(), |invoice| invoice.id)
}
