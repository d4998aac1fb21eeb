-- Posts outcomes over every connection, each under an id of its own; tells at the end what came of them, as JSON.
-- Arguments: a file of decision tokens, one a line; how many outcomes are in one request; a word that makes ids unique.

local tokens, at, number, size, word = {}, 0, 0, 1, ""
local headers = {["Content-Type"] = "application/json"}

function init(args)
   for line in io.lines(args[1]) do
      tokens[#tokens + 1] = line
   end
   size, word = tonumber(args[2]), args[3]
end

local function outcome()
   at = at % #tokens + 1
   number = number + 1
   return string.format('{"decision":"%s","metric":"brier","value":0.%04d,"id":"%s-%d"}',
      tokens[at], number % 10000, word, number)
end

function request()
   if size == 1 then
      return wrk.format("POST", "/v1/outcomes", headers, outcome())
   end
   local parts = {}
   for i = 1, size do
      parts[i] = outcome()
   end
   return wrk.format("POST", "/v1/outcomes", headers, "[" .. table.concat(parts, ",") .. "]")
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "refused": %d, "broken": %d, "p50_us": %d, "p99_us": %d}\n',
      summary.requests, summary.duration / 1e6, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
