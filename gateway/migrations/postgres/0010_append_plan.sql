-- Every way into the tables of append_envelopes is by a key, so that one plan fits all batches. Left to
-- itself, Postgres planned its statement anew at nearly each call: a plan for a batch of one looks
-- cheaper than one for the ten items that it otherwise supposes, and planning took longer than running.
ALTER FUNCTION append_envelopes SET plan_cache_mode = force_generic_plan;
