-- wishes: carries out what was asked for by who may not cancel himself (wish.lua). scripts.py puts this text
-- into promote.lua, in the place of its line "--@wishes"; `now` is its.
--   T:cx  zset: ids to be cancelled, by when it was asked
-- Whoever asks for one may write there what he likes: a merged request is no message of his.
--@cancelling

-- The first `most` of them. Returns whether others are left.
local function carry_out_wishes(most)
  for _, id in ipairs(redis.call('ZRANGE', K('cx'), 0, most - 1)) do
    redis.call('ZREM', K('cx'), id)
    if #id <= 128 and id:match('^[%w._-]+$') then cancel_one(id) end
  end
  return redis.call('EXISTS', K('cx')) == 1
end
