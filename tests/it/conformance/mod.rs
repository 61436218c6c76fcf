//! What the contract promises, asked of every provider: once in process and once through the component, always against the real
//! answering end over HTTP. A client alone is asked here, so what only the journal can promise is not.

mod asking;
mod bench;
mod changing;
mod faulty;
mod remote_ids;
mod subjects;
mod through_component;

use provisor_providers::PROVIDERS;

/// One test per property.
macro_rules! each {
    ($way:expr, $provider:expr, $($module:ident :: $property:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $property() {
                let way = $way;
                let local = tokio::task::LocalSet::new();
                local.run_until(crate::conformance::$module::$property(way.to($provider).await)).await;
            }
        )+
    };
}

macro_rules! properties {
    ($way:expr, $provider:expr) => {
        each! {
            $way, $provider,
            asking::describe_lists_exactly_what_works,
            asking::an_operation_answers_unsupported_without_the_setting_it_needs,
            asking::the_account_the_credit_and_the_catalogue_have_their_shapes,
            asking::an_unknown_service_is_missing_and_cannot_be_terminated,
            asking::a_wrong_secret_is_unauthorized_everywhere,
            asking::a_closed_port_is_unreachable_everywhere,
            changing::an_order_becomes_an_active_service,
            changing::one_key_makes_one_service,
            changing::an_order_whose_answer_was_lost_is_found_again,
            changing::an_order_without_credit_is_made_once_the_credit_is_there,
            changing::suspending_twice_and_taking_it_back_twice_is_a_success,
            changing::terminating_twice_is_a_success,
            changing::a_due_date_is_paid_once_and_the_next_one_again,
            changing::a_package_is_changed_and_paid_once,
            changing::a_password_is_set,
            remote_ids::every_id_that_was_handed_out_leads_to_the_service,
            faulty::create_under_faults,
            faulty::suspend_under_faults,
            faulty::unsuspend_under_faults,
            faulty::terminate_under_faults,
            faulty::renew_under_faults,
            faulty::reset_password_under_faults,
            faulty::change_package_under_faults,
            faulty::power_under_faults,
            faulty::a_client_makes_up_for_one_fault_by_itself,
            faulty::a_deadline_is_kept,
        }
    };
}

macro_rules! providers {
    ($($provider:ident),+ $(,)?) => {
        const TESTED: &[&str] = &[$(stringify!($provider)),+];
        $(
            mod $provider {
                mod in_process {
                    use crate::conformance::bench::Way;
                    properties!(Way::InProcess, stringify!($provider));
                }
                mod through_the_component {
                    use crate::conformance::bench::Way;
                    properties!(Way::ThroughTheComponent, stringify!($provider));
                }
            }
        )+
    };
}

providers!(kernelhost, gp);

#[test]
fn every_provider_is_tested() {
    let there: Vec<&str> = PROVIDERS.iter().map(|provider| provider.id).collect();
    assert_eq!(there, TESTED);
}
