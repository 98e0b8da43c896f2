-- Healthy: the stable version answers; a promotion under way does not change that. Degraded: a person is needed.
local status = obj.status or {}
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end
if (status.observedGeneration or 0) < (obj.metadata.generation or 0) then
  return { status = "Progressing", message = "the operator has not looked at this spec yet" }
end
if found.Stalled and found.Stalled.status == "True" then
  return { status = "Degraded", message = found.Stalled.reason .. ": " .. found.Stalled.message }
end
if status.phase == "Suspended" then
  return { status = "Suspended", message = "spec.suspend is true: nothing new is started" }
end
if status.phase == "Serving" then
  return { status = "Healthy", message = "serves " .. status.stable.name }
end
if status.phase == "Promoting" then
  return { status = "Healthy", message = "serves " .. status.stable.name .. "; under way: " .. (status.promotion or "") }
end
local why = found.Ready and found.Ready.message or ""
return { status = "Progressing", message = why ~= "" and why or "the stable version does not answer yet" }
