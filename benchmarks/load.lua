-- Sends the prepared requests in turn over every connection; tells at the end what came of them, as JSON.
-- Arguments: a file with the body, and a file of targets, each line a path and headers, separated by tabs.

local prepared, at = {}, 0

function init(args)
   local file = assert(io.open(args[1], "rb"))
   local body = file:read("*a")
   file:close()
   for line in io.lines(args[2]) do
      local headers, path = {["Content-Type"] = "application/json"}, nil
      for part in line:gmatch("[^\t]+") do
         if path == nil then
            path = part
         else
            local name, value = part:match("^([^:]+): (.*)$")
            headers[name] = value
         end
      end
      prepared[#prepared + 1] = wrk.format("POST", path, headers, body)
   end
end

function request()
   at = at % #prepared + 1
   return prepared[at]
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "refused": %d, "broken": %d, "p50_us": %d, "p99_us": %d}\n',
      summary.requests, summary.duration / 1e6, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
