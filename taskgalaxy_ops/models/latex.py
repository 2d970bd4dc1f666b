"""Names of LaTeX's commands, as far as they tell a command from a line break or a tab that letters follow.

In JSON, ``\\nabla`` with a single backslash reads as a line break and "abla". Standard LaTeX and amsmath, amssymb.
"""

from __future__ import annotations

_COMMANDS = """
    acute aleph alpha amalg angle approx approxeq arccos arcsin arctan arg array ast asymp
    backprime backsim backslash bar barwedge because begin beta beth between bf bigcap bigcirc bigcup bigg biggl biggr
    bigl bigodot bigoplus bigotimes bigr bigsqcup bigstar bigtriangledown bigtriangleup biguplus bigvee bigwedge binom
    blacklozenge blacksquare blacktriangle bm bmod boldsymbol bot bowtie boxed boxminus boxplus boxtimes breve bullet
    bumpeq
    cal cap caption cases cdot cdots centerdot centering cfrac check checkmark chi circ circledast circledcirc cite
    clubsuit colon color cong coprod cos cosh cot coth csc cup curlyvee curlywedge
    dagger daleth dashv dbinom ddagger ddot ddots deg delta det dfrac diamond diamondsuit dim displaystyle div
    documentclass dot doteq dots dotsb dotsc doublecap doublecup downarrow Downarrow Delta
    ell em emph emptyset end epsilon eqcirc equiv eta eth exists exp
    fallingdotseq fbox flat footnote footnotesize forall frac frak frown Finv
    gamma Gamma gcd ge genfrac geq geqq geqslant gets gg ggg gimel gneq gnsim grave gtrsim
    hat hbar heartsuit hline hom hookleftarrow hookrightarrow hphantom hskip hslash hspace huge
    iff iiint iint Im imath implies in include includegraphics inf infty injlim int intercal iota it item
    jmath kappa ker
    label lambda Lambda land langle large Large lbrace lbrack lceil ldots le left leftarrow Leftarrow leftharpoonup
    leftrightarrow Leftrightarrow leq leqq leqslant lesssim lfloor lg lhd lim liminf limits limsup ll lll ln lnot log
    longleftarrow longleftrightarrow Longleftrightarrow longmapsto longrightarrow Longrightarrow lor lozenge
    lrcorner ltimes lVert lvert
    mapsto mathbb mathbf mathbin mathcal mathfrak mathit mathop mathrel mathring mathrm mathscr mathsf mathtt max
    mbox measuredangle mho mid middle min mod models mp mu multimap
    nabla natural ncong ndash ne nearrow neg neq newcommand newline newpage nexists ngeq ngeqq ngeqslant ngtr ni
    nicefrac nleftarrow nleftrightarrow nLeftarrow nLeftrightarrow nleq nleqq nleqslant nless nmid nocite noindent
    nolimits nonumber norm normalsize not notag notin notni nparallel nprec npreceq nrightarrow nRightarrow nshortmid
    nsim nsubseteq nsubseteqq nsucc nsucceq nsupseteq nsupseteqq ntriangleleft ntrianglelefteq ntriangleright
    ntrianglerighteq nu num numberwithin nvdash nvDash nVdash nVDash nwarrow
    odot oint omega Omega omicron ominus operatorname oplus oslash otimes over overbrace overleftarrow overline
    overrightarrow overset
    par parallel partial perp phantom phi Phi pi Pi pitchfork pm pmod prec preceq prime prod projlim propto psi Psi
    qquad quad
    raggedright raisebox rangle rbrace rbrack rceil Re ref renewcommand rfloor rgroup rhd rho right rightarrow
    Rightarrow rightharpoondown rightharpoonup rightleftarrows rightleftharpoons rightrightarrows rightsquigarrow
    rightthreetimes risingdotseq rm rmoustache rtimes rule rvert rVert
    sc scriptsize scriptstyle searrow sec section sf sharp sigma Sigma sim simeq sin sinh small smallint smallsetminus
    smile spadesuit sqcap sqcup sqrt sqsubset sqsubseteq sqsupset square ss stackrel star subsection subset subseteq
    subsetneq substack succ succeq sum sup supset supseteq surd swarrow
    tab table tabular tag tan tanh tau tbinom tcbox text textbf textcircled textcolor textdegree textellipsis
    textemdash textendash textit textmd textnormal textquotedbl textquoteleft textquoteright textregistered textrm
    textsc textsf textsl textstyle textsubscript textsuperscript texttrademark texttt textup textwidth tfrac
    th therefore
    theta Theta thetasym thickapprox thicksim thinspace thanks tilde times tiny title to toprule top tr triangle
    triangledown triangleleft trianglelefteq triangleq triangleright trianglerighteq tt twoheadleftarrow
    twoheadrightarrow
    ulcorner underbrace underleftarrow underline underrightarrow underset unlhd unrhd uparrow Uparrow updownarrow
    uplus upsilon Upsilon upuparrows urcorner usepackage
    varepsilon varkappa varnothing varphi varpi varpropto varrho varsigma vartheta vartriangle vdash vDash vdots vec
    vee veebar verb vert Vert vspace
    wedge widehat widetilde wp wr Xi xi xleftarrow xrightarrow zeta
"""

# After n or t, the rest of these is a word, a letter or a beginning of either that may stand at the start of a line or
# of a column: "less", "e", "an". Only what is around them tells whether they are commands.
_COULD_BE_TEXT = """
    ne nu ni neg nmid nless nexists nparallel nsim nprec nsucc ncong norm num
    tan tau text tab table tag to top tt th tr
"""

COMMANDS = frozenset(_COMMANDS.split())
COULD_BE_TEXT = frozenset(_COULD_BE_TEXT.split())
PUNCTUATION = frozenset("()[]{},;:!%$&#_| ")  # commands of one sign: \( \[ \{ \, \% …
