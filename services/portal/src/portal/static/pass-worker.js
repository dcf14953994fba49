// Answers for the page of the pass at once from what it put aside; for all else, and for what the
// page asks anew, the network does.
addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || request.cache === "reload") return;
  event.respondWith(
    caches.match(request, { ignoreVary: true }).then((found) => found ?? fetch(request)),
  );
});
