"use strict";
// A slider and the number beside it are one value; each move asks for the counts again. Without scripts the button does.
const form = document.querySelector("form[data-live]");
if (form) {
  const result = document.getElementById("result");
  let timer = 0, turn = 0;
  const ask = async () => {
    const mine = ++turn;
    const query = new URLSearchParams(new FormData(form));
    result.setAttribute("aria-busy", "true");
    let html = "";
    try {
      const answer = await fetch(form.dataset.live + "?" + query);
      html = await answer.text();
    } catch (error) {
      html = "";
    }
    if (mine !== turn) return;
    if (html) result.innerHTML = html;  // made and escaped by the server; the policy lets no script in it run
    else result.textContent = "The server does not answer: is nestling browse still running?";
    result.setAttribute("aria-busy", "false");
    history.replaceState(null, "", "?" + query);
  };
  form.addEventListener("input", (event) => {
    for (const other of event.target.closest("fieldset").querySelectorAll("input")) {
      if (other !== event.target) other.value = event.target.value;
    }
    clearTimeout(timer);
    timer = setTimeout(ask, 120);
  });
}
