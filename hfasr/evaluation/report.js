// A player is made when it is asked for: the bytes of a clip are not decoded before.
for (const button of document.querySelectorAll("button[data-clip]")) {
  button.addEventListener("click", () => {
    const player = document.createElement("audio");
    player.controls = true;
    player.src = "data:audio/mpeg;base64," + document.getElementById(button.dataset.clip).textContent.trim();
    button.replaceWith(player);
    player.play().catch(() => {});
  });
}
