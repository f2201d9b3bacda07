-- What results say of the provider: its pace, its connections, its breaker (docs/pacing.md).
-- scripts.py puts this text into settle, in the place of its line "--@health".
--
-- Everything here is the destination's, in the hash gate, so that all workers share it:
--   res                     the last 100 results, two characters each: g good, u 503, o outage
--                           (no connection, 502, 504, time-out), b other bad (500); then the moment,
--                           in fifths of a second modulo 64. '||' stands for more than 10 s of silence
--   pace                    requests/s now, absent at the ceiling; with pace_top (the rate at which
--                           the provider refused), pace_from (where growth began), pace_age (us of
--                           good running since), pace_seen, pace_cut (when it was lowered last),
--                           pace_slow (1 after an outage), pace_why
--   refused, accepted       when the last refusal came, and how many were accepted since
--   conc                    connections in use by feedback, absent when all are
--   breaker, probe          open since (us); the one message that may pass it, taken at probe_at
--   suspect                 until then an outage is suspected; pace_well: the pace before it
--   bad_tenant, others_good whose the last bad result was; 1 when another tenant had a good one since
--   lat, lat_usual, lat_n   response time: of the last 20 or so, the usual one, how many were seen
--   adv_*                   RateLimit headers: see advised()
local WINDOW_US, STEP_US, MARK = 10000000, 200000, '||'
local RESULTS, RUN, SLOW_RUN = 100, 20, 5
-- Growth after a cut, by the cube of the time since (RFC 9438): quickly back to where refusals came,
-- slowly past it, then ever faster. 39 s from nothing to the ceiling.
local CUBE = 1 / 60000
local LEAST_SHARE, TROUBLE_FLOOR = 0.01, 0.25
local FORGET_US = 600000000
local FEEDBACK = 0.25
local FIELDS = {'res', 'res_at', 'throttles', 'throttle_at', 'rate_set', 'pace', 'pace_top',
  'pace_from', 'pace_age', 'pace_seen', 'pace_cut', 'pace_slow', 'refused', 'accepted', 'busy',
  'conc', 'breaker', 'probe', 'suspect', 'lat', 'lat_usual', 'lat_n', 'adv_end', 'adv_ok',
  'probe_at', 'pace_well', 'adv_lies', 'adv_off', 'hold_until', 'hold_kind', 'level', 'at', 'k', 'fill_from', 'good_at',
  'breaker_why', 'bad_tenant', 'others_good'}
local TEXT = {res = true, bad_tenant = true, probe = true, hold_kind = true, breaker_why = true}
local G, changed, gone = nil, {}, {}

local function health()
  if G then return G end
  G = {}
  local values = redis.call('HMGET', K('gate'), unpack(FIELDS))
  for i, name in ipairs(FIELDS) do
    if values[i] then G[name] = TEXT[name] and values[i] or tonumber(values[i]) end
  end
  return G
end

local function note(name, value)
  health()[name] = value
  changed[name], gone[name] = value, value == nil or nil
end

local function write_health()
  local fields, names = {}, {}
  for name, value in pairs(changed) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  for name in pairs(gone) do names[#names + 1] = name end
  if #fields > 0 then redis.call('HSET', K('gate'), unpack(fields)) end
  if #names > 0 then redis.call('HDEL', K('gate'), unpack(names)) end
end

-- The longer wait wins; one without an end wins over all.
local function hold(kind, till, why)
  local g = health()
  local old = g.hold_until or 0
  if old == -1 or (till ~= -1 and old >= till) then return end
  note('hold_until', till)
  note('hold_kind', kind)
  note('hold_why', why)
  note('hold_since', now)
end

-- -- pace ---------------------------------------------------------------------------------

local adaptive = cfg.pace == 'adaptive'
local function ceiling() return health().rate_set or cfg.rate end
local function least() return math.max(ceiling() * LEAST_SHARE, math.min(ceiling(), 0.1)) end
local function pace() return math.min(health().pace or ceiling(), ceiling()) end

-- What came in at the old rate, before there is another.
local function fold()
  local g = health()
  if not g.level or not g.at then return end
  local from = math.max(g.at, g.fill_from or 0)
  if now > from then
    note('level', math.min(g.k or 0, g.level + (now - from) * pace() / 1000000))
    note('at', now)
  end
end

local function full_speed()
  for _, name in ipairs({'pace', 'pace_top', 'pace_from', 'pace_age', 'pace_seen', 'pace_slow',
    'pace_why'}) do note(name, nil) end
end

local function set_pace(rate, top, slow, why)
  fold()
  note('pace', math.max(least(), rate))
  note('pace_from', health().pace)
  note('pace_top', top)
  note('pace_age', 0)
  note('pace_seen', now)
  note('pace_cut', now)
  note('pace_slow', slow)
  note('pace_why', why)
end

-- Not twice within `apart`: what was under way when it was lowered tells of the pace before.
-- `floor`, a part of the ceiling: what does not come from the rate is not mended by it either.
-- `soon`: doubled back every two seconds, for the wait that goes with it was the answer.
local function lower(share, why, apart, top, floor, soon)
  local g = health()
  if not adaptive or g.breaker or (g.pace_cut and now < g.pace_cut + apart) then return end
  top = math.min(top or pace(), pace())
  local to = math.max(top * share, math.min(pace(), (floor or 0) * ceiling()))
  if to >= pace() then return end
  set_pace(to, top, soon, why)
  bump('pace_cuts')
end

-- Between two refusals a provider's bucket goes from empty to empty: what it accepted meanwhile,
-- over the time, is its rate, whatever its burst. Only where there was always something to send.
local function refusal(why)
  if not adaptive then return end
  local g = health()
  local top, share = nil, 0.7
  if g.refused and g.accepted and g.busy and g.accepted >= 10 then
    local spent = now - g.refused
    if spent >= 2000000 and g.busy >= 0.8 * spent then
      top, share = math.max(0.3 * pace(), g.accepted * 1000000 / spent), 0.9
    end
  end
  lower(share, why, 1000000, top)
  note('refused', now)
  note('accepted', 0)
  note('busy', 0)
end

local function grow()
  local g = health()
  local ran = math.max(0, math.min(now - (g.pace_seen or now), 1000000))
  note('pace_seen', now)
  local rate = g.pace
  if g.pace_slow then
    -- After an outage: doubled every two seconds, to where it was.
    rate = rate * 2 ^ (ran / 2000000)
    if rate >= g.pace_top then
      rate = g.pace_top
      note('pace_slow', nil)
      note('pace_from', rate)
      note('pace_age', 0)
    end
  else
    note('pace_age', (g.pace_age or 0) + ran)
    local scale = CUBE * ceiling()
    local bend = (math.max(0, g.pace_top - g.pace_from) / scale) ^ (1 / 3)
    rate = g.pace_top + scale * (g.pace_age / 1000000 - bend) ^ 3
  end
  if rate >= ceiling() then
    fold()
    full_speed()
  elseif math.abs(rate - g.pace) > 0.001 * g.pace then
    fold()
    note('pace', math.max(least(), rate))
  end
end

-- Rising response times: a provider that is overloaded answers late before it refuses.
local function answered(us)
  local g = health()
  local seen, usual, fast = (g.lat_n or 0) + 1, g.lat_usual or us, g.lat or us
  note('lat_n', math.min(seen, 10000))
  note('lat', math.floor(fast + (us - fast) / math.min(seen, 20)))
  -- Down soon, up slowly: what is usual shall not rise with the trouble.
  local drift = math.min(seen, us < usual and 20 or 5000)
  note('lat_usual', math.floor(usual + (us - usual) / math.max(drift, seen < 50 and seen or 1)))
end

local function watch_latency()
  local g = health()
  if not adaptive or (g.lat_n or 0) < 100 then return end
  if g.lat > 3 * g.lat_usual and g.lat > g.lat_usual + 250000 then
    lower(0.9, string.format('answers take %.0f ms, usually %.0f', g.lat / 1000,
      g.lat_usual / 1000), 5000000, nil, TROUBLE_FLOOR)
  end
end

-- -- connections: Postfix's feedback: a failure costs a quarter, a success gives one over their
-- number; so one bad server in four is tolerated ----------------------------------------------

local function feedback(good)
  if not adaptive then return end
  local g = health()
  local used = g.conc or cfg.connections
  if good then
    if not g.conc then return end
    used = used + 1 / used
  else
    used = math.max(1, used - FEEDBACK)
  end
  if used >= cfg.connections then note('conc', nil) else note('conc', used) end
end

-- -- breaker ------------------------------------------------------------------------------

local function record(letter)
  local g = health()
  local res = g.res or ''
  if g.res_at and now - g.res_at > WINDOW_US then res = res .. MARK end
  res = res .. letter .. string.char(48 + math.floor(now / STEP_US) % 64)
  note('res', string.sub(res, -2 * RESULTS))
  note('res_at', now)
end

-- How many of the last 20 results are a 503.
local function recent_503()
  local count, seen, res = 0, 0, health().res or ''
  for i = #res - 1, 1, -2 do
    local letter = string.sub(res, i, i)
    if letter ~= '|' then seen = seen + 1 end
    if letter == 'u' then count = count + 1 end
    if seen == 20 then break end
  end
  return count
end

-- Looks back over the results: {n, bad within the window of 10 s; of the last ten: n, bad; the
-- length of the run of bad ones at the end, whatever their age, its span, whether silence is in it}
local function look_back()
  local res = health().res
  local seen = {n = 0, bad = 0, last = 0, last_bad = 0, run = 0, run_us = 0, gaps = false}
  local age, later, within, running = 0, nil, true, true
  for i = #res - 1, 1, -2 do
    local letter = string.sub(res, i, i)
    if letter == '|' then
      within = false
      if running then seen.gaps = true end
    else
      local code = string.byte(res, i + 1) - 48
      if later and within then age = age + (later - code) % 64 * STEP_US end
      later = code
      if age > WINDOW_US then within = false end
      local bad = letter ~= 'g'
      if not bad then running = false end
      if running then seen.run, seen.run_us = seen.run + 1, age end
      if within then
        seen.n = seen.n + 1
        if bad then seen.bad = seen.bad + 1 end
        if seen.n <= 10 then
          seen.last = seen.n
          if bad then seen.last_bad = seen.last_bad + 1 end
        end
      elseif not running then break end
    end
  end
  return seen
end

local function open_breaker(why)
  if health().breaker then return end
  note('breaker', now)
  note('breaker_why', why)
  note('probe', nil)
  hold('breaker', now + cfg.probe_us, why)
  bump('breaker_opened')
end

local function close_breaker()
  local g = health()
  local top = math.min(g.pace_well or pace(), ceiling())
  note('breaker', nil)
  note('pace_well', nil)
  note('breaker_why', nil)
  note('probe', nil)
  note('suspect', nil)
  note('res', nil)
  if g.hold_kind == 'breaker' then
    for _, name in ipairs({'hold_until', 'hold_kind', 'hold_why', 'hold_since'}) do note(name, nil) end
  end
  if adaptive then
    set_pace(math.min(top, 0.1 * ceiling()), top, 1, 'after an outage')
    -- Not with a bucket that filled while nothing could be sent.
    note('level', math.min(health().level or 0, 1))
  end
  bump('breaker_closed')
end

-- A bad result: is it an outage? Sets suspect, opens the breaker. `why` is the last one's words.
local function suspect_outage(why)
  local seen = look_back()
  if seen.last >= 3 and 2 * seen.last_bad >= seen.last then
    if adaptive and (health().suspect or 0) <= now then note('pace_well', pace()) end
    note('suspect', now + WINDOW_US)
  end
  local enough = math.max(3, math.min(10, cfg.connections))
  local all = (seen.run >= RUN and seen.run_us >= 1000000) or (seen.run >= SLOW_RUN and seen.gaps)
  if all or (seen.n >= enough and seen.bad >= 0.7 * seen.n) then
    open_breaker(string.format('%d of the last %d results are bad, the last: %s',
      all and seen.run or seen.bad, all and seen.run or seen.n, why))
  elseif seen.n >= 8 and 4 * seen.bad > seen.n then
    lower(0.7, 'more than one result in four is bad, the last: ' .. why, 2000000, nil, TROUBLE_FLOOR)
  end
end

local function clear_suspicion()
  local seen = look_back()
  if 2 * seen.last_bad < seen.last then note('suspect', nil) end
end

-- How long it may take until an outage is known for one: a message that has met it comes later.
local function verdict_us()
  return math.min(WINDOW_US, math.max(1000000, RESULTS * 1000000 / cfg.rate))
end

local function is_suspected()
  local g = health()
  return g.breaker ~= nil or (g.suspect or 0) > now
end

-- The one message let through: its result decides. Anything that is an answer is a provider that
-- is back.
local function probed(letter, action)
  note('probe', nil)
  if letter == 'g' or action == 'throttled' or action == 'quota' or action == 'held' then
    close_breaker()
  elseif letter == '' then
    -- Given back unsent: another may try at once.
    if health().hold_kind == 'breaker' then note('hold_until', now) end
  else
    if health().hold_kind == 'breaker' then note('hold_until', 0) end
    -- Counted from its beginning: one that was not answered has waited already.
    local again = math.max(now + 1000000, (health().probe_at or now) + cfg.probe_us)
    hold('breaker', again, health().breaker_why or 'the probe failed')
  end
end

-- -- RateLimit headers --------------------------------------------------------------------

-- "Nothing left until ...": waited for, up to a minute at a time. One whose very next answer says
-- so again although it accepted the request, twice in a row, is not believed for ten minutes.
local function advised(wait_us, begun)
  local g = health()
  if not adaptive or (g.adv_off or 0) > now then return end
  if g.adv_end and begun >= g.adv_end then
    local lies = (g.adv_ok or 0) <= 1 and (g.adv_lies or 0) + 1 or 0
    note('adv_lies', lies)
    if lies >= 2 then
      note('adv_off', now + 600000000)
      note('adv_lies', 0)
      return
    end
  end
  local till = now + math.min(wait_us, 60000000)
  note('adv_end', math.max(g.adv_end or 0, till))
  note('adv_ok', 0)
  hold('throttled', till, 'RateLimit header: nothing left')
end

local function accepted(begun)
  local g = health()
  if g.adv_end and begun >= g.adv_end then note('adv_ok', (g.adv_ok or 0) + 1) end
  if g.refused then
    note('accepted', (g.accepted or 0) + 1)
    note('busy', (g.busy or 0) + math.max(0, math.min(now - (g.good_at or now), 1000000)))
    note('good_at', now)
    if now - g.refused > FORGET_US then note('refused', nil) end
  end
end

-- Whether a bad result is one tenant's own trouble: its last was bad too, and meanwhile another's
-- was good. Then it tells nothing of the provider, and costs the others nothing.
local function own_trouble(letter, tenant)
  local g = health()
  if letter == 'g' then
    if g.bad_tenant and g.bad_tenant ~= tenant and not g.others_good then note('others_good', 1) end
    return false
  end
  if tenant ~= '' and g.bad_tenant == tenant and g.others_good then return true end
  if g.bad_tenant ~= tenant then note('bad_tenant', tenant) end
  if g.others_good then note('others_good', nil) end
  return false
end

-- One result of the destination, before it is known what becomes of its message.
-- letter '' (it tells nothing), g, u, o, b; us: the response time or nil
local function judge(id, letter, action, begun, us, why, tenant)
  local g = health()
  if letter ~= '' then bump(letter == 'g' and 'good' or 'bad') end
  if g.breaker then
    if g.probe == id then probed(letter, action) end
    return
  end
  if letter == '' or own_trouble(letter, tenant) then return end
  record(letter)
  if letter == 'g' then
    accepted(begun)
    feedback(true)
    if adaptive and us then answered(us) end
    if adaptive and g.pace then grow() end
    if (g.suspect or 0) > now then clear_suspicion() end
  else
    if letter ~= 'b' then feedback(false) end
    suspect_outage(why)
  end
end
