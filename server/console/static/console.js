// Everything works without this. It shows what is new without loading the whole page: it asks for the same page again,
// marked as asked by itself, and puts the new content in the old one's place.
"use strict";

(() => {
  const policy = window.trustedTypes?.createPolicy("fedseal", { createHTML: (text) => text });
  const seconds = () => Number(document.getElementById("content")?.dataset.refresh ?? 0);
  let slower = 1;

  function placeOf(element) {
    // Where the focus is, so that it can be put back: by id, else by its number among what can have it.
    const all = [...document.querySelectorAll("#content a, #content button, #content summary, #content [tabindex]")];
    return { id: element?.id ?? "", number: all.indexOf(element) };
  }

  function focusAgain(place) {
    const all = document.querySelectorAll("#content a, #content button, #content summary, #content [tabindex]");
    const found = (place.id && document.getElementById(place.id)) || all[place.number];
    found?.focus({ preventScroll: true });
  }

  function takeOver(text) {
    const parsed = new DOMParser().parseFromString(policy ? policy.createHTML(text) : text, "text/html");
    const fresh = parsed.getElementById("content");
    const old = document.getElementById("content");
    if (!fresh || !old) return;
    const focused = old.contains(document.activeElement) ? placeOf(document.activeElement) : null;
    const open = [...old.querySelectorAll("details")].map((one) => one.open);
    fresh.querySelectorAll("details").forEach((one, at) => { one.open = open[at] ?? one.open; });
    const said = old.querySelector("[role=status]");
    const says = fresh.querySelector("[role=status]");
    if (said && says) {
      // The same element stays, so that a screen reader speaks only what has changed.
      if (said.textContent !== says.textContent) said.textContent = says.textContent;
      says.replaceWith(said);
    }
    const scrolled = [...old.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    old.replaceWith(document.adoptNode(fresh));
    fresh.querySelectorAll(".scroll").forEach((one, at) => { one.scrollLeft = scrolled[at] ?? 0; });
    const foot = parsed.querySelector(".foot p");
    const place = document.querySelector(".foot p");
    if (foot && place && !place.contains(document.activeElement)) place.replaceWith(document.adoptNode(foot));
    if (focused) focusAgain(focused);
  }

  async function look() {
    if (document.hidden) return;
    const url = new URL(location.href);
    url.searchParams.set("watch", "1");
    const answer = await fetch(url, { credentials: "same-origin", redirect: "error" });
    if (answer.status === 401) {
      location.assign("/sign-in?next=" + encodeURIComponent(location.pathname));
    } else if (answer.ok) {
      takeOver(await answer.text());
    }
  }

  async function keepLooking() {
    if (!seconds()) return;
    try {
      await look();
      slower = 1;
    } catch {
      slower = Math.min(slower * 2, 16);
    }
    setTimeout(keepLooking, 1000 * seconds() * slower);
  }

  if (seconds()) setTimeout(keepLooking, 1000 * seconds());
})();
