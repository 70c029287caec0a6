//! One suite for the backbone's contract, run against every implementation.
//!
//! Tests over NATS start a real nats-server each; `cargo xtask setup` installs it.

#[path = "contract/audit.rs"]
mod audit;
#[path = "contract/broker.rs"]
mod broker;
#[path = "contract/cable.rs"]
mod cable;
#[path = "contract/credentials.rs"]
mod credentials;
#[path = "contract/enrolment.rs"]
mod enrolment;
#[path = "contract/fleet.rs"]
mod fleet;
#[path = "contract/leaf.rs"]
mod leaf;
#[path = "contract/leases.rs"]
mod leases;
#[path = "contract/messages.rs"]
mod messages;
#[path = "contract/mqtt_listener.rs"]
mod mqtt_listener;
#[path = "contract/nats.rs"]
mod nats;
#[path = "contract/operator.rs"]
mod operator;
#[path = "contract/reconnection.rs"]
mod reconnection;
#[path = "contract/requests.rs"]
mod requests;
#[path = "contract/server.rs"]
mod server;
#[path = "contract/site.rs"]
#[macro_use]
mod site;
#[path = "contract/topic_stream.rs"]
mod topic_stream;

on_each! {
    requests:
        a_request_is_answered_and_both_ways_carry_header_fields
        an_error_reaches_the_caller_with_its_kind_text_and_failure
        a_request_that_nobody_serves_fails_at_once
        a_request_past_its_deadline_fails_and_its_handler_is_dropped
        a_handler_that_panics_answers_with_an_error
        what_is_too_large_is_refused_in_both_directions
        members_that_serve_the_same_share_its_requests
        a_service_answers_so_many_at_once_and_refuses_what_cannot_wait
        a_stopped_service_answers_what_it_took_and_then_nobody_serves
        a_request_reaches_the_node_that_it_names_and_no_other;
    messages:
        every_subscriber_gets_every_message_in_order
        a_subscription_receives_its_subjects_only_and_until_it_is_dropped
        what_a_slow_subscriber_has_no_room_for_is_counted;
    reconnection:
        who_is_cut_off_knows_it_and_fails_at_once
        what_a_member_serves_and_subscribes_to_is_in_place_when_it_is_back
        a_request_that_waits_when_the_connection_breaks_fails_at_once
        what_was_begun_while_cut_off_counts_from_the_return;
    leases:
        of_many_claimers_one_gets_the_lease
        a_lease_that_is_given_back_is_taken_at_once_in_a_later_term
        a_lease_is_held_as_long_as_it_is_renewed
        a_lease_that_is_not_renewed_lapses_each_time
        a_holder_takes_its_own_lease_over_and_the_older_one_learns_it
        a_holder_that_is_cut_off_stops_before_another_begins
        a_holder_that_nobody_hears_stops_before_another_begins
        a_term_is_greater_than_every_term_that_was_seen
        a_lease_lives_within_its_bounds;
}
