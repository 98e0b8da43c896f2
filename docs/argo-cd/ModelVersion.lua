-- Healthy: the store holds these bytes. Degraded: it does not, or a suite failed, and a person has to look.
local status = obj.status or {}
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end
for _, kind in ipairs({ "Verified", "Evaluated" }) do
  if found[kind] and found[kind].status == "False" then
    return { status = "Degraded", message = found[kind].reason .. ": " .. found[kind].message }
  end
end
if status.phase == "Verified" or status.phase == "Evaluated" then
  return { status = "Healthy", message = status.phase }
end
return { status = "Progressing", message = "not looked at yet" }
