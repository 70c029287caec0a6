//! A cluster with nodes that are reached over a backbone: every test runs in process and over a real nats-server.

#[path = "../../cluster/tests/contract/cable.rs"]
#[expect(dead_code, reason = "the contract's suite asks more of it")]
mod cable;
#[path = "far_nodes/calls.rs"]
mod calls;
#[path = "far_nodes/life.rs"]
mod life;
#[path = "../../cluster/tests/contract/server.rs"]
#[expect(dead_code, reason = "the contract's suite asks more of it")]
mod server;
#[path = "../../cluster/tests/contract/site.rs"]
#[expect(dead_code, reason = "the contract's suite asks more of it")]
#[macro_use]
mod site;
#[path = "far_nodes/support.rs"]
mod support;
#[path = "far_nodes/trust.rs"]
mod trust;

on_each! {
    life:
        a_node_joins_reports_what_it_is_and_falls_silent
        a_node_that_was_away_serves_writes_and_then_takes_only_the_newest
        a_node_that_was_removed_is_refused_and_its_hub_tells_so
        a_hub_that_starts_again_knows_its_nodes_and_what_they_should_run
        what_happened_on_a_node_while_its_hub_was_away_is_told_when_it_is_back;
    calls:
        a_function_is_deployed_called_and_undeployed_on_a_far_node
        what_cannot_be_called_says_why
        the_trace_context_of_a_caller_reaches_the_guest_on_a_far_node
        an_artifact_whose_transfer_broke_off_is_fetched_from_where_it_was
        the_log_of_a_far_function_is_followed;
    trust:
        a_fleet_with_a_trusted_key_runs_what_it_signed_and_stops_the_rest
        a_node_with_keys_of_its_own_trusts_no_other_whatever_its_hub_says
        a_node_that_wants_few_documents_hears_of_the_trusted_keys_all_the_same;
}
