-- Healthy: it succeeded. Degraded: it failed. A job that restarts is progressing.
local found = {}
for _, condition in ipairs(obj.status and obj.status.conditions or {}) do
  if condition.status == "True" then
    found[condition.type] = condition
  end
end
if found.Failed then
  return { status = "Degraded", message = found.Failed.message or "failed" }
end
if found.Succeeded then
  return { status = "Healthy", message = found.Succeeded.message or "succeeded" }
end
if found.Suspended then
  return { status = "Suspended", message = found.Suspended.message or "suspended" }
end
local going = found.Restarting or found.Running or found.Created or {}
return { status = "Progressing", message = going.message or "not started yet" }
