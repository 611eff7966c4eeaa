-- Fragment: what eyes see. One stream entry a transition, `type US id US name US owner US attempt US state
-- US reason US extra` (US = \31), and a message on `done:ID` when a task ends. Nothing that must happen
-- depends on either. ARGV[1] is "FULL:KEEP": FULL = 1 when memory is above 90% (no entry), KEEP the length.
local events_full, events_keep = string.sub(ARGV[1], 1, 1), string.sub(ARGV[1], 3)
local EVENTS = P .. 'events'

local function tell(entry)
  if events_full == '1' then return end
  call('XADD', EVENTS, 'MAXLEN', '~', events_keep, '*', 'e', entry)
end

local function event(kind, id, m, extra)
  tell(kind .. '\31' .. id .. '\31' .. m[NAME] .. '\31' .. m[OWNER] .. '\31' .. m[ATTEMPT] .. '\31' .. m[STATE]
    .. '\31' .. m[REASON] .. '\31' .. (extra or ''))
end

local function announce(id, m)
  call('PUBLISH', P .. 'done:' .. id, m[STATE])
end
