// The pass on this phone. Its private key is made here, cannot be read by any script, and never
// leaves; what it signs changes every half minute, and needs no network.
import { generate } from "./lean-qr-2.7.4.js";

const WINDOW_MS = 30_000;
const CONTEXT = "copass phone pass v1\n";
const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const SIGNING = { name: "ECDSA", hash: "SHA-256" };
// A phone that is further off shows codes that no door takes.
const CLOCK_OFF_MAX_MS = 25_000;
const CACHE = "copass-pass";

const byId = (id) => document.getElementById(id);
const isAble = () =>
  window.isSecureContext && "subtle" in (window.crypto ?? {}) && "indexedDB" in window;

// --- what is kept: `pending`, made and not yet taken by the city, and `current`

function kept(mode, act) {
  return new Promise((done, failed) => {
    const opening = indexedDB.open("copass", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("passes");
    opening.onerror = () => failed(opening.error);
    opening.onsuccess = () => {
      const change = opening.result.transaction("passes", mode);
      const asked = act(change.objectStore("passes"));
      change.oncomplete = () => {
        opening.result.close();
        done(asked.result);
      };
      change.onabort = () => failed(change.error);
    };
  });
}
const read = (name) => kept("readonly", (passes) => passes.get(name));
const keep = (name, pass) => kept("readwrite", (passes) => passes.put(pass, name));
const forget = (name) => kept("readwrite", (passes) => passes.delete(name));

// --- what is shown

function base32(bytes) {
  let text = "";
  let bits = 0;
  let value = 0;
  for (const byte of bytes) {
    value = (value << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += BASE32[(value >>> bits) & 31];
    }
    value &= (1 << bits) - 1;
  }
  return bits ? text + BASE32[(value << (5 - bits)) & 31] : text;
}

function base64url(bytes) {
  const text = btoa(String.fromCharCode(...bytes));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// As copass_tap.passes reads it: card id, window, signature of both.
async function codeOf(pass, number) {
  const told = new Uint8Array(20);
  const digits = pass.cardId.replaceAll("-", "");
  for (let at = 0; at < 16; at += 1) told[at] = parseInt(digits.slice(2 * at, 2 * at + 2), 16);
  new DataView(told.buffer).setUint32(16, number);
  const signed = new Uint8Array([...new TextEncoder().encode(CONTEXT), ...told]);
  const signature = await crypto.subtle.sign(SIGNING, pass.key, signed);
  return "CP1." + base32([...told, ...new Uint8Array(signature)]);
}

function draw(text) {
  const code = generate(text);
  let path = "";
  for (let y = 0; y < code.size; y += 1) {
    for (let x = 0; x < code.size; x += 1) if (code.get(x, y)) path += `M${x} ${y}h1v1h-1z`;
  }
  const image = byId("qr");
  // Four modules of white around it, as the standard wants.
  image.setAttribute("viewBox", `-4 -4 ${code.size + 8} ${code.size + 8}`);
  image.querySelector("path").setAttribute("d", path);
  image.dataset.code = text;
}

async function show() {
  // The way here from the form names the pass that the city has just taken.
  const pending = await read("pending");
  if (pending && location.hash === `#${pending.cardId}`) {
    await keep("current", pending);
    await forget("pending");
    // Asks the browser not to tidy the key away when there is little room.
    await navigator.storage?.persist?.();
  }
  const pass = await read("current");
  byId("none").hidden = Boolean(pass);
  byId("shown").hidden = !pass;
  if (!pass) return;
  byId("label").textContent = pass.label;
  byId("remove").addEventListener("click", async () => {
    await forget("current");
    location.replace("/pass/");
  });
  let drawn = -1;
  const tick = async () => {
    const now = Date.now();
    const number = Math.floor(now / WINDOW_MS);
    if (number !== drawn) {
      drawn = number;
      draw(await codeOf(pass, number));
    }
    const left = Math.ceil((WINDOW_MS - (now % WINDOW_MS)) / 1000);
    byId("left").textContent = left;
    byId("time").value = left;
    setTimeout(tick, 500);
  };
  await tick();
}

// Puts the page aside for when there is no network, and compares the clocks while there is one.
async function putAside() {
  await navigator.serviceWorker?.register("/pass/worker.js", { scope: "/pass/" });
  const page = await fetch(new Request("/pass/", { cache: "reload" }));
  const off = Date.now() - Date.parse(page.headers.get("date"));
  byId("clock").hidden = !(Math.abs(off) > CLOCK_OFF_MAX_MS);
  const cache = await caches.open(CACHE);
  const parts = [...document.querySelectorAll("[data-part]")].map((part) => part.dataset.part);
  await Promise.all([cache.put("/pass/", page), ...parts.map((part) => cache.add(part))]);
  for (const old of await cache.keys()) {
    const { pathname, search } = new URL(old.url);
    if (![...parts, "/pass/"].includes(pathname + search)) await cache.delete(old);
  }
  document.documentElement.dataset.offline = "ready";
}

// --- the form that puts a pass on this phone

function enrol(form) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    for (const button of form.querySelectorAll("button")) button.disabled = true;
    const pair = await crypto.subtle.generateKey(
      { name: "ECDSA", namedCurve: "P-256" },
      false,
      ["sign"],
    );
    const point = await crypto.subtle.exportKey("raw", pair.publicKey);
    form.elements.public_key.value = base64url(new Uint8Array(point));
    await keep("pending", {
      cardId: form.elements.once.value,
      key: pair.privateKey,
      label: form.elements.label.value,
    });
    form.submit();
  });
}

byId("unable").hidden = isAble();
if (isAble()) {
  const form = byId("enrol");
  if (form) {
    form.hidden = false;
    enrol(form);
  } else {
    await show();
    await putAside().catch(() => {}); // no network: what was put aside before stays
  }
}
