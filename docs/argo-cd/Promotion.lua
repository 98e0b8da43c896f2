-- Healthy: there is an answer, Rejected and RolledBack among them: users have the stable version and nothing is broken.
-- Degraded: it failed, or waits until a person repairs something. Suspended: a person has to say yes or no.
local status = obj.status or {}
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end
if found.Stalled and found.Stalled.status == "True" then
  return { status = "Degraded", message = found.Stalled.reason .. ": " .. found.Stalled.message }
end
if found.Ready and found.Ready.status == "True" then
  local why = status.decision and ": " .. status.decision.message or ""
  return { status = "Healthy", message = status.phase .. why }
end
if status.phase == "AwaitingApproval" then
  return { status = "Suspended", message = "say: tunegate promotions approve " .. obj.metadata.name .. " -n " .. obj.metadata.namespace .. " (or reject)" }
end
if status.weight and status.weight > 0 then
  return { status = "Progressing", message = status.phase .. " at " .. status.weight .. " %" }
end
return { status = "Progressing", message = status.phase or "Pending" }
