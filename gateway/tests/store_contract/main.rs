//! One suite for both stores: every rule, race and refusal, on SQLite and on real Postgres.
//!
//! `FASTCHAT_TEST_POSTGRES` names a Postgres to use (a superuser's URL); without it the suite starts a
//! throwaway one from the packages that Debian and Ubuntu have.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod accounts;
mod append;
mod arrivals;
mod blobs;
mod cluster;
mod commit;
mod connections;
mod differential;
mod direct;
mod groups;
mod mailbox;
mod moving;
mod operate;
mod operations;
mod people;
mod races;
mod read;
mod receipts;
mod removal;
mod restored;
mod retain;
mod senders;
mod world;
mod writer;

/// Each test runs on both stores.
macro_rules! contract {
    ($($module:ident: $($name:ident),+;)+) => {
        mod on_sqlite {$($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::$module::$name(crate::world::World::sqlite().await).await;
            }
        )+)+}
        mod on_postgres {$($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::$module::$name(crate::world::World::postgres().await).await;
            }
        )+)+}
    };
}

contract! {
    accounts:
        registers_once,
        accounts_are_found_together_each_with_its_newest_manifest,
        a_manifest_follows_the_one_in_force,
        a_device_is_neither_taken_over_nor_given_another_key,
        the_password_changes_only_from_the_one_in_force,
        key_packages_are_given_out_once_and_then_the_last_resort;
    arrivals:
        a_session_begins_with_all_that_the_store_knows_of_its_device,
        devices_are_found_together_and_strangers_left_out;
    append:
        seqs_are_contiguous_and_a_retry_gets_the_first,
        other_bytes_under_a_used_counter_are_a_conflict,
        a_retry_after_retention_has_expired,
        a_counter_that_is_not_next_is_refused_with_the_one_that_is,
        a_refused_item_breaks_its_chain_and_no_other,
        dedupe_comes_before_everything_else,
        strangers_and_the_revoked_are_refused,
        a_batch_over_many_conversations_keeps_each_in_order,
        who_wrote_before_is_judged_again,
        numbers_that_no_column_holds_are_refused,
        envelopes_of_any_size_are_kept_as_they_came;
    commit:
        a_commit_moves_the_epoch_once,
        the_window_of_epochs_ends_at_a_change_of_membership,
        a_removed_device_reads_up_to_its_removal,
        a_device_lets_itself_in,
        a_stranger_is_not_let_in,
        a_commit_is_stored_whole_or_not_at_all;
    direct:
        a_pair_has_one_conversation,
        a_conversation_with_oneself,
        nobody_founds_for_others;
    groups:
        a_group_is_founded_once,
        a_member_that_comes_again_starts_anew,
        a_new_device_is_unjoined_until_it_lets_itself_in,
        a_direct_conversation_keeps_its_members,
        whoever_leaves_reads_up_to_its_statement,
        an_owner_hands_over_and_leaves,
        the_next_generation_replaces_everything,
        a_large_group_is_founded_at_once;
    people:
        a_blocked_party_is_not_accepted,
        a_block_comes_before_the_conversation,
        those_who_talk_are_acquainted,
        a_revocation_raises_revisions,
        a_deleted_account_is_out_for_good,
        a_recovery_replaces_manifest_and_password,
        slots_hold_parts_until_they_expire;
    operate:
        an_invite_lets_as_many_in_as_it_says,
        the_last_use_of_an_invite_is_used_once,
        a_disabled_account_is_shut_out_until_it_is_enabled,
        users_are_listed_in_pages_by_name,
        a_device_is_shut_out_without_its_owners_manifest,
        quotas_replace_what_the_deployment_allows,
        a_login_is_reset_and_its_password_voided,
        the_audit_log_says_what_happened_and_ends;
    mailbox:
        welcomes_wait_with_their_tree_until_they_are_acked,
        a_page_ends_at_its_size;
    read:
        pages_end_at_rows_and_bytes_but_have_one,
        conversations_come_in_pages,
        cursors_move_forward_and_not_past_the_head,
        a_former_member_reads_nothing_later,
        retention_shows_in_first,
        moved_since_says_what_moved,
        the_state_is_for_members;
    receipts:
        a_read_position_is_believed_within_bounds_and_never_goes_back,
        what_was_received_is_the_greatest_cursor_of_whoever_tells,
        receipts_are_of_those_who_are_in,
        a_circle_of_two_ends_with_a_block,
        last_seen_is_for_acquaintances_of_those_who_want_it;
    races:
        many_senders_leave_no_hole,
        a_retry_races_its_first_try,
        one_founder_wins,
        a_package_is_claimed_once,
        commits_and_sends_race,
        moved_since_misses_nothing,
        the_last_two_acks_race,
        ends_race_with_everything;
    removal:
        remove_against_send;
    blobs:
        a_blob_is_begun_put_and_finished,
        a_part_is_put_once,
        a_blob_is_for_those_who_were_there,
        whoever_is_put_out_meanwhile_puts_nothing_more,
        a_blocked_party_puts_nothing,
        an_account_keeps_as_much_as_its_quota,
        a_blob_is_dropped_by_its_account_or_an_admin,
        tokens_expire,
        what_is_past_its_time_goes_in_steps,
        what_lies_outside_is_known_part_by_part;
    retain:
        old_rows_go_from_the_front,
        rows_wait_for_devices_that_are_about,
        a_look_finds_logs_whose_front_is_old,
        one_holds_a_lease;
    restored:
        another_incarnation_says_where_the_backup_ended,
        a_conversation_of_two_goes_on_in_a_generation;
    connections:
        a_caller_that_gives_up_spoils_no_connection;
    writer:
        batches_form_under_load,
        a_poisoned_item_refuses_nobody_else,
        replies_come_in_order,
        a_full_queue_refuses_at_once,
        what_was_acked_is_committed,
        closing_drains;
}
