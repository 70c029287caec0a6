//! A cluster with nodes that are reached over a backbone: every test runs in process and over a real nats-server.

#[path = "../../cluster/tests/contract/cable.rs"]
mod cable;
#[path = "far_nodes/calls.rs"]
mod calls;
#[path = "far_nodes/chaos.rs"]
mod chaos;
#[path = "far_nodes/deployments.rs"]
mod deployments;
#[path = "far_nodes/life.rs"]
mod life;
#[path = "far_nodes/routing.rs"]
mod routing;
#[path = "far_nodes/schedules.rs"]
mod schedules;
#[path = "../../cluster/tests/contract/server.rs"]
mod server;
#[path = "../../cluster/tests/contract/site.rs"]
#[expect(dead_code, reason = "the contract's suite asks more of it")]
#[macro_use]
mod site;
#[path = "far_nodes/support.rs"]
mod support;
#[path = "far_nodes/topics.rs"]
mod topics;
#[path = "far_nodes/triggers.rs"]
mod triggers;
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
    deployments:
        a_revision_rolls_out_batch_by_batch_and_no_call_fails
        a_canary_that_fails_or_dawdles_goes_back_and_no_other_node_saw_it
        a_revision_that_cannot_run_goes_back_from_the_first_batch
        a_node_that_was_away_takes_the_newest_only
        a_node_that_holds_keeps_what_it_runs_also_over_a_start
        functions_of_a_number_move_before_they_leave
        a_function_of_a_silent_node_starts_elsewhere_and_one_copy_goes_when_it_returns
        a_rollout_waits_for_approval_and_goes_on_under_another_hub_process
        a_node_that_missed_that_a_deployment_was_made_anew_runs_what_that_says
        a_first_revision_that_fails_is_taken_away
        what_a_deployment_cares_for_is_not_assigned_by_itself
        of_a_function_for_one_node_no_two_ever_run_it;
    schedules:
        a_schedule_of_the_fleet_fires_on_its_nodes_also_while_nobody_hears_of_them
        a_schedule_for_one_node_stays_where_it_is_while_that_is_away_and_moves_when_it_is_removed
        a_node_that_is_removed_leaves_schedules_of_the_fleet_to_others_until_it_is_back
        a_node_that_writes_nonsense_to_its_schedules_keeps_no_other_from_them
        what_is_made_up_for_at_a_start_waits_for_its_lease;
    routing:
        a_call_runs_in_this_process_first_and_elsewhere_when_it_is_not_there
        of_three_nodes_one_may_fail_or_vanish_under_load
        of_three_nodes_one_may_fall_silent_under_load
        what_a_node_has_not_is_called_at_its_own_site_first
        a_breaker_opens_is_tried_and_closes
        the_deadline_of_a_call_reaches_the_node
        a_node_calls_what_it_has_and_its_hub_finds_the_rest
        a_node_that_is_full_or_fails_has_its_hub_find_another
        a_function_for_one_node_is_called_where_its_lease_is
        nodes_that_are_full_are_not_asked_over_and_over
        what_serves_is_called_while_what_is_to_follow_fails
        a_function_that_hangs_leaves_room_for_another_on_its_node
        of_calls_on_a_node_that_vanishes_one_that_may_run_twice_waits_least
        a_node_cannot_make_itself_one_that_is_called;
    chaos:
        an_experiment_holds_or_breaks_and_its_report_stays
        an_experiment_ends_when_it_is_too_bad_or_somebody_says_so
        nodes_that_an_experiment_cuts_off_serve_on_and_catch_up
        what_cannot_be_an_experiment_is_refused_before_anything_happens
        faults_end_by_themselves_when_their_hub_is_gone
        a_hub_that_starts_again_ends_what_it_left_behind
        a_fault_that_met_no_node_is_not_borne
        calls_that_are_under_way_at_the_end_are_waited_for
        what_fails_on_one_node_counts_when_calls_of_a_load_may_not_run_twice;
    topics:
        what_a_node_publishes_reaches_the_hub_and_calls_a_function_on_another_node
        what_was_published_while_a_node_was_away_arrives_once_and_in_order
        what_the_hub_took_and_the_node_did_not_hear_of_comes_once
        what_is_left_of_a_log_that_gave_up_what_was_not_forwarded_arrives
        what_is_sent_after_what_another_hub_overtook_is_not_taken_for_all
        a_node_that_is_not_who_it_says_or_speaks_for_another_is_refused
        a_slow_hub_is_sent_one_bundle_at_a_time
        a_hub_that_takes_nothing_for_a_while_makes_a_node_lose_nothing
        a_hub_that_starts_again_has_what_was_published_and_goes_on
        what_a_node_imported_comes_once_also_when_it_starts_again
        topics_whose_servers_were_emptied_begin_anew_and_nothing_comes_twice;
    triggers:
        a_trigger_of_the_fleet_calls_its_function_where_messages_are_published_also_while_nobody_hears_of_them
        a_trigger_of_the_fleet_comes_to_a_node_with_its_function_and_goes_with_it
        of_two_triggers_of_one_name_the_one_of_the_hub_runs_and_the_other_goes_on_after_it
        what_a_trigger_had_not_handled_when_it_left_a_node_is_counted_and_told;
    trust:
        a_fleet_with_a_trusted_key_runs_what_it_signed_and_stops_the_rest
        a_node_with_keys_of_its_own_trusts_no_other_whatever_its_hub_says
        a_node_that_wants_few_documents_hears_of_the_trusted_keys_all_the_same;
}
