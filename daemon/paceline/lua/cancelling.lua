-- cancelling: one message, by id; for cancel.lua, cancel_campaign.lua, wish.lua and wishes.lua. scripts.py puts
-- this text into them, in the place of the line "--@cancelling"; `now` is theirs.

-- One word: cancelled, begun (flagged), ended (nothing to cancel), dead or parked (drop those), unknown.
local function cancel_one(id)
  local m = read(id)
  if m and locate(m).state == 'Q' then m = out_of_request(m, now) or m end
  if not m then return redis.call('EXISTS', K('m:' .. id)) == 1 and 'ended' or 'unknown' end
  if m.state == 'D' then return 'dead' end
  if m.state == 'K' then return 'parked' end
  if m.state == 'Q' or m.state == 'B' then
    redis.call('SETRANGE', K('m:' .. id), 23, 'c')
    return 'begun'
  end
  leave(m)
  finish(m, 'C', now, m.nonce)
  bump('cancelled')
  return 'cancelled'
end
