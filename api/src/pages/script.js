"use strict";
// Addresses are relative: a proxy may serve all this below a path of its own.
const element = id => document.getElementById(id);

function say(text) {
  element("said").textContent = text;
}

// `fetch` names this page's origin by itself, as the server wants it for what changes something.
async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json" },
    body: JSON.stringify(body),
  });
  const told = answer.status === 204 ? {} : await answer.json();
  return { ok: answer.ok, told };
}

// Whoever presses twice asks once. What answers with true has left this page.
function on(id, event, act) {
  const at = element(id);
  at?.addEventListener(event, async happened => {
    happened.preventDefault();
    const buttons = document.querySelectorAll("button");
    buttons.forEach(button => (button.disabled = true));
    say("");
    try {
      if (await act(at)) return;
    } catch {
      say("The server cannot be reached. Try again.");
    }
    buttons.forEach(button => (button.disabled = false));
  });
}

const refusal = told => told.detail ?? told.title ?? "That did not work.";

// The server knows this browser now, or no longer, and answers with another page.
function again() {
  location.reload();
  return true;
}

let challenge;

function field(form, name) {
  return form.elements[name].value.trim();
}

on("password", "submit", async form => {
  const body = { email: field(form, "email"), password: form.elements.password.value };
  if (field(form, "tenant")) body.tenant = field(form, "tenant");
  const { ok, told } = await post("../login", body);
  if (told.mfaRequired) {
    challenge = told.challenge;
    form.hidden = true;
    element("factor").hidden = false;
    element("factor").elements.code.focus();
  } else if (ok) {
    return again();
  } else if (told.type === "/problems/tenant-required") {
    const several = told.errors.map(error => new Option(error.detail));
    form.elements.tenant.replaceChildren(new Option("Choose one", ""), ...several);
    element("tenant").hidden = false;
    form.elements.tenant.focus();
    say("Which tenant do you mean?");
  } else {
    say(refusal(told));
  }
});

on("factor", "submit", async form => {
  const typed = field(form, "code");
  const digits = typed.replace(/\s/g, "");
  const code = /^\d{6}$/.test(digits) ? { code: digits } : { recoveryCode: typed };
  const { ok, told } = await post("../login/mfa", { challenge, ...code });
  return ok ? again() : say(refusal(told));
});

on("allow", "click", async button => {
  location.assign(button.dataset.to);
  return true;
});

on("leave", "click", async () => {
  const { ok, told } = await post("../logout", {});
  return ok ? again() : say(refusal(told));
});
